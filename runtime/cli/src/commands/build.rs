//! `rwork build`: from a plugin's folder to the `.wasm` beside its sources, checked.

mod cargo;

use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use cargo::{TARGET, has_standard_library};

use crate::context::Context;
use crate::examine::{self, Examined};
use crate::printer::Tone;

const EXAMPLES: &str = "\
Compiles with the settings that make a task cheap to start, puts NAME.wasm into the plugin's folder by a rename (a worker
that watches the folder takes it at once), checks it, and prints its size, what it imports and its tasks.

Examples:
  rwork build
  rwork build plugins/math plugins/text
  rwork build --out-dir /srv/plugins";

/// Arguments of `rwork build`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folders of plugins
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Put the .wasm files there instead of beside their sources
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Fail unless Cargo.lock is up to date
    #[arg(long)]
    locked: bool,
}

/// Builds each folder.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    cargo::require_target()?;
    let sandbox = examine::sandbox(&context.io)?;
    let mut built = Vec::new();
    for path in &args.paths {
        for artefact in cargo::build(path, args.locked)? {
            let wasm = cargo::install(&artefact, args.out_dir.as_deref().unwrap_or(path))?;
            let examined = examine::examine(&sandbox, &wasm).await?;
            if !context.printer.json() {
                report(&examined, context);
            }
            built.push(examined);
        }
    }
    if context.printer.json() {
        context.printer.document(&built.iter().map(Examined::document).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(examined: &Examined, context: &Context) {
    examined.print(&context.printer);
    let needed = examined.grants_needed();
    if !needed.is_empty() {
        let keys = needed.join("`, `");
        let note = format!("the operator must grant `{keys}` in rwork.toml before a worker loads it");
        context.printer.note(context.printer.tint_note(Tone::Faint, note));
    }
}
