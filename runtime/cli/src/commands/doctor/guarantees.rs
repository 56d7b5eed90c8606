//! `rwork doctor --guarantees`: what this configuration promises, and what would make it promise more.

mod promises;
mod stronger;

use std::process::ExitCode;

use serde_json::json;

use super::check::Check;
use crate::config::Config;
use crate::context::Context;
use crate::drivers::{self, Driver};
use crate::failure::Exit;
use crate::printer::{Printer, Tone};
use promises::PROMISES;

/// A broker with where results are kept: a column of docs/guarantees.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Embedded,
    Redis,
    /// Redis, results on another server.
    RedisElsewhere,
    /// RabbitMQ, results where they can be looked up.
    RabbitMq,
    RabbitMqRpc,
}

impl Column {
    fn of(broker: &Driver, backend: &Driver) -> Self {
        match (broker, backend) {
            (Driver::Embedded(_), _) => Self::Embedded,
            (Driver::Redis(server), Driver::Redis(results)) if server.is_same_server(results) => Self::Redis,
            (Driver::Redis(_), _) => Self::RedisElsewhere,
            (Driver::Amqp(_), Driver::Amqp(_)) => Self::RabbitMqRpc,
            (Driver::Amqp(_), _) => Self::RabbitMq,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "Redis",
            Self::RedisElsewhere => "Redis, results elsewhere",
            Self::RabbitMq => "RabbitMQ, results in Redis or a file",
            Self::RabbitMqRpc => "RabbitMQ, results by rpc",
        }
    }
}

/// Opens broker and backend, and says what they promise.
///
/// # Errors
/// When one of them can't be opened.
pub(super) async fn run(config: &Config, context: &Context) -> anyhow::Result<ExitCode> {
    let broker = drivers::open_broker(config).await?;
    let backend = drivers::open_backend(config, &broker).await?;
    let column = Column::of(&broker, &backend);
    let stronger = stronger::of(config, column, &broker, &backend).await;
    if context.printer.json() {
        context.printer.document(&document(column, &stronger))?;
    } else {
        print(column, &stronger, &context.printer);
    }
    Ok(Exit::Done.into())
}

fn print(column: Column, stronger: &[Check], printer: &Printer) {
    printer.line(printer.tint(Tone::Strong, column.name()));
    for promise in &PROMISES {
        printer.line(format!("  {:<47} {}", promise.what, promise.kept(column)));
    }
    if stronger.is_empty() {
        printer.line("nothing would make it stronger");
    }
    stronger.iter().for_each(|check| check.print(printer));
}

fn document(column: Column, stronger: &[Check]) -> serde_json::Value {
    let promise =
        |promise: &promises::Promise| json!({ "promise": promise.what, "kept": promise.kept(column) });
    json!({
        "column": column.name(),
        "promises": PROMISES.iter().map(promise).collect::<Vec<_>>(),
        "stronger": stronger.iter().map(Check::document).collect::<Vec<_>>(),
    })
}
