//! One file for each command: its arguments and what it does.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod call;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dead;
pub(crate) mod doctor;
pub(crate) mod new;
pub(crate) mod plugins;
pub(crate) mod purge;
pub(crate) mod queues;
pub(crate) mod result;
pub(crate) mod run;

use std::process::ExitCode;
use std::time::Duration;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;

/// What `rwork --version` prints after the name.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (wasmtime ", env!("RWORK_WASMTIME_VERSION"), ")");

/// Runs one command to its end.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(*args, context).await,
        Command::Call(args) => call::run(*args, context).await,
        Command::Result(args) => result::run(args, context).await,
        Command::Plugins(args) => plugins::run(args, context).await,
        Command::Queues(args) => queues::run(args, context).await,
        Command::Purge(args) => purge::run(args, context).await,
        Command::Dead(args) => dead::run(args, context).await,
        Command::Config(args) => config::run(args, context).await,
        Command::New(args) => new::run(args, context).await,
        Command::Build(args) => build::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Bench(args) => bench::run(args, context).await,
        Command::Completions(args) => completions::run(args, context).await,
    }
}

/// Asks before something is lost.
///
/// # Errors
/// When nobody is there to be asked.
pub(crate) fn confirm(context: &Context, yes: bool, question: &str) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !context.printer.interactive() {
        return Err(Failure::usage(format!("nobody is there to be asked: {question}"))
            .hint("add `--yes`")
            .into());
    }
    context.printer.ask(question)
}

/// A flag's number of seconds, fractions too.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number of seconds".to_owned();
    text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(wrong)
}
