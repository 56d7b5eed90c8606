//! `rwork result`: state and value of a task id.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rwork_protocol::TaskId;

use crate::commands::seconds;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::{drivers, report, waiting};

const EXAMPLES: &str = "\
Exit status 1 means that the task failed, or that nothing is known of it (yet).

Examples:
  rwork result 0199f2b6-7c3e-7f6e-9d3b-0b1c5a7e4f21
  rwork result 0199f2b6-7c3e-7f6e-9d3b-0b1c5a7e4f21 --wait --timeout 30
  rwork result 0199f2b6-7c3e-7f6e-9d3b-0b1c5a7e4f21 --forget";

/// Arguments of `rwork result`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Task id
    #[arg(value_name = "ID")]
    id: TaskId,
    /// Wait until the task has ended
    #[arg(short, long)]
    wait: bool,
    /// Wait at most so long [default: for ever]
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Delete the result, after printing it
    #[arg(long)]
    forget: bool,
    /// Write the value to a file: bytes and text as they are, anything else as JSON
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the record.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let backend = drivers::backend(context.config()?).await?;
    let record = if args.wait {
        match waiting::wait(context, &backend, &args.id, args.timeout).await? {
            Some(record) => record,
            None => return Ok(Exit::Interrupted.into()),
        }
    } else {
        let found = backend.get(std::slice::from_ref(&args.id)).await?.into_iter().flatten().next();
        found.ok_or_else(|| nothing(&args.id))?
    };
    let exit = report::record(&context.printer, &record, args.output.as_deref())?;
    if args.forget {
        backend.forget(&args.id).await?;
    }
    Ok(exit)
}

fn nothing(id: &TaskId) -> Failure {
    Failure::failed(format!("nothing is known of task `{id}`")).hint(
        "it is waiting, or running without `track_started`, or its result has expired; `--wait` waits for it",
    )
}
