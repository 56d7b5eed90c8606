//! `rwork call`: sends a task, and waits for its result if asked.

mod arguments;
mod send;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rwork_protocol::{QueueName, TaskId, TaskName};
use serde_json::json;

use crate::commands::seconds;
use crate::context::Context;
use crate::failure::Exit;
use crate::{drivers, report, waiting};

const EXAMPLES: &str = "\
Each ARG is one JSON value; what is no JSON is text. `@PATH` sends a file's bytes, `@@x` the text
`@x`. With --wait the value goes to stdout; a failed task prints its exception to stderr, and the
exit status is 1.

Examples:
  rwork call math.add 2 2 --wait
  rwork call text.count_words '[\"./README.md\"]' --wait
  rwork call images.thumbnail @photo.png 64 64 --wait --output thumbnail.png
  rwork call mail.send -k to=ann@example.org -k urgent=true --countdown 60";

/// Arguments of `rwork call`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Name of the task
    #[arg(value_name = "TASK")]
    task: TaskName,
    /// Positional arguments
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
    /// Keyword arguments: one JSON object
    #[arg(long, value_name = "JSON")]
    kwargs: Option<String>,
    /// One keyword argument
    #[arg(short = 'k', long = "kwarg", value_name = "NAME=VALUE")]
    pairs: Vec<String>,
    /// Wait for the result and print it
    #[arg(short, long)]
    wait: bool,
    /// Wait at most so long [default: for ever]
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Write the value to a file: bytes and text as they are, anything else as JSON
    #[arg(short, long, value_name = "FILE", requires = "wait")]
    output: Option<PathBuf>,
    /// Queue [default: that of the configuration]
    #[arg(short = 'Q', long, value_name = "QUEUE")]
    queue: Option<QueueName>,
    /// Not before so many seconds have passed
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    countdown: Option<Duration>,
    /// Not before this time (ISO 8601; without a zone it is UTC)
    #[arg(long, value_name = "TIME", conflicts_with = "countdown")]
    eta: Option<String>,
    /// Not after this time, or so many seconds from now
    #[arg(long, value_name = "TIME|SECONDS")]
    expires: Option<String>,
    /// Priority, 0 is served first
    #[arg(long, value_name = "0-9", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Task id [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<TaskId>,
    /// Hard time limit for this message
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    time_limit: Option<Duration>,
    /// Soft time limit for this message
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    soft_time_limit: Option<Duration>,
    /// Store no result
    #[arg(long, conflicts_with = "wait")]
    ignore_result: bool,
    /// A message header of your own, JSON or text
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

/// Sends; with `--wait` prints the value, else the id.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let (task, queue) = send::compose(&args, config)?;
    let services = drivers::services(config).await?;
    let id = services.client().send(task, &queue).await?;
    let printer = &context.printer;
    if !args.wait {
        if printer.json() {
            printer.document(&json!({"task_id": id.as_str(), "queue": queue.as_str()}))?;
        } else {
            printer.line(&id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    match waiting::wait(context, &services.backend, &id, args.timeout).await? {
        Some(record) => report::record(printer, &record, args.output.as_deref()),
        None => Ok(Exit::Interrupted.into()),
    }
}
