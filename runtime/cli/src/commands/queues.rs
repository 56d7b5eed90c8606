//! `rwork queues`: how full each queue is.

use std::process::ExitCode;

use rwork_broker::QueueInfo;
use serde_json::json;

use crate::context::Context;
use crate::drivers;

const EXAMPLES: &str = "\
Ready: deliverable now. Held: handed to a worker. Delayed: not due yet. Dead: given up.

Examples:
  rwork queues
  rwork queues --json | jq '.[] | select(.ready > 1000)'";

/// Arguments of `rwork queues`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Prints a line for each queue.
pub(crate) async fn run(_args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let broker = drivers::broker(context.config()?).await?;
    let queues = broker.queues().await?;
    let printer = &context.printer;
    if printer.json() {
        printer.document(&queues.iter().map(document).collect::<Vec<_>>())?;
    } else if queues.is_empty() {
        printer.note("no queues yet");
    } else {
        printer.table(&["QUEUE", "READY", "HELD", "DELAYED", "DEAD"], queues.iter().map(row));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(queue: &QueueInfo) -> Vec<String> {
    let counts = [queue.ready, queue.unsettled, queue.delayed, queue.dead];
    let mut row = vec![queue.name.to_string()];
    row.extend(counts.iter().map(u64::to_string));
    row
}

fn document(queue: &QueueInfo) -> serde_json::Value {
    json!({
        "name": queue.name.as_str(),
        "ready": queue.ready,
        "held": queue.unsettled,
        "delayed": queue.delayed,
        "dead": queue.dead,
    })
}
