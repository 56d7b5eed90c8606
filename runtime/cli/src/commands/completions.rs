//! `rwork completions`: a script that completes commands and flags in a shell.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;

const EXAMPLES: &str = "\
Examples:
  rwork completions bash > ~/.local/share/bash-completion/completions/rwork
  rwork completions zsh > \"${fpath[1]}/_rwork\"
  rwork completions fish > ~/.config/fish/completions/rwork.fish";

/// Arguments of `rwork completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// For which shell
    shell: Shell,
}

/// Prints the script.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rwork", &mut script);
    context.printer.bytes(&script);
    Ok(ExitCode::SUCCESS)
}
