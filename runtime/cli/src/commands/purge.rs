//! `rwork purge`: deletes the waiting messages of queues.

use std::process::ExitCode;

use rwork_protocol::QueueName;
use serde_json::json;

use crate::commands::confirm;
use crate::context::Context;
use crate::drivers;

const EXAMPLES: &str = "\
What a worker holds is left alone; dead letters are kept (see `rwork dead purge`).

Examples:
  rwork purge celery
  rwork purge reports mail --yes";

/// Arguments of `rwork purge`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Queues
    #[arg(value_name = "QUEUE", required = true)]
    queues: Vec<QueueName>,
    /// Don't ask
    #[arg(short = 'y', long, short_alias = 'f', alias = "force")]
    yes: bool,
}

/// Asks, deletes, and says how many messages there were.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let broker = drivers::broker(context.config()?).await?;
    let names: Vec<String> = args.queues.iter().map(|queue| format!("`{queue}`")).collect();
    if !confirm(context, args.yes, &format!("delete all waiting messages of {}?", names.join(", ")))? {
        return Ok(ExitCode::FAILURE);
    }
    let mut purged = Vec::new();
    for queue in &args.queues {
        purged.push((queue, broker.purge(queue).await?));
    }
    let printer = &context.printer;
    if printer.json() {
        let counts: Vec<_> =
            purged.iter().map(|(queue, count)| json!({"name": queue.as_str(), "purged": count})).collect();
        printer.document(&counts)?;
    } else {
        for (queue, count) in purged {
            printer.line(format!("{queue}: {count} deleted"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
