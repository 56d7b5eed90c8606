//! `rwork dead`: the messages that were given up.

mod show;

use std::process::ExitCode;

use clap::Subcommand;
use rwork_broker::{Broker, DeadLetter, DeadLetterId, DeadLetterQuery};
use rwork_protocol::QueueName;
use serde_json::json;

use crate::commands::confirm;
use crate::context::Context;
use crate::drivers;
use crate::failure::{Exit, Failure};
use crate::printer::{Printer, tame};

const EXAMPLES: &str = "\
A message is given up when its task is unknown, it can't be read, it is rejected, or it was
delivered too often without an outcome. It is kept as it came.

Examples:
  rwork dead list -Q reports
  rwork dead show 12
  rwork dead retry 12 13
  rwork dead purge --all -Q reports --yes";

/// Arguments of `rwork dead`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them, oldest first
    #[command(after_help = "Examples:\n  rwork dead list\n  rwork dead list -Q mail --limit 20 --after 140")]
    List(List),
    /// Everything about one: why, headers, body
    #[command(after_help = "Examples:\n  rwork dead show 12\n  rwork dead show 12 --json")]
    Show {
        /// Its id, as `rwork dead list` shows it
        id: String,
    },
    /// Put them back into their queues
    #[command(after_help = "Examples:\n  rwork dead retry 12 13\n  rwork dead retry --all -Q mail")]
    Retry(Which),
    /// Delete them
    #[command(after_help = "Examples:\n  rwork dead purge 12\n  rwork dead purge --all --yes")]
    Purge {
        #[command(flatten)]
        which: Which,
        /// Don't ask
        #[arg(short = 'y', long, short_alias = 'f', alias = "force")]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only of this queue
    #[arg(short = 'Q', long, value_name = "QUEUE")]
    queue: Option<QueueName>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Those after this one
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Their ids, as `rwork dead list` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Only of this queue
    #[arg(short = 'Q', long, value_name = "QUEUE")]
    queue: Option<QueueName>,
}

impl Which {
    fn query(&self) -> DeadLetterQuery {
        DeadLetterQuery {
            ids: self.ids.iter().cloned().map(DeadLetterId).collect(),
            queue: self.queue.clone(),
            ..DeadLetterQuery::default()
        }
    }

    fn describe(&self) -> String {
        let what = if self.all {
            "all dead letters".to_owned()
        } else {
            format!("{} dead letter(s)", self.ids.len())
        };
        self.queue.as_ref().map_or(what.clone(), |queue| format!("{what} of `{queue}`"))
    }
}

/// Lists, shows, puts back or deletes.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let broker = drivers::broker(context.config()?).await?;
    match args.action {
        Action::List(which) => list(context, &*broker, which).await,
        Action::Show { id } => show(context, &*broker, id).await,
        Action::Retry(which) => {
            let count = broker.retry_dead_letters(which.query()).await?;
            told(&context.printer, "retried", count)
        }
        Action::Purge { which, yes } => {
            if !confirm(context, yes, &format!("delete {}?", which.describe()))? {
                return Ok(Exit::Failed.into());
            }
            let count = broker.purge_dead_letters(which.query()).await?;
            told(&context.printer, "deleted", count)
        }
    }
}

async fn list(context: &Context, broker: &dyn Broker, which: List) -> anyhow::Result<ExitCode> {
    let query = DeadLetterQuery {
        queue: which.queue,
        // One more than is shown, to know whether there are more.
        limit: Some(which.limit.saturating_add(1)),
        after: which.after.map(DeadLetterId),
        ..DeadLetterQuery::default()
    };
    let mut letters = broker.dead_letters(query).await?;
    let more = letters.len() > which.limit;
    letters.truncate(which.limit);
    let printer = &context.printer;
    if printer.json() {
        printer.document(&letters.iter().map(show::document).collect::<Vec<_>>())?;
    } else if letters.is_empty() {
        printer.note("no dead letters");
    } else {
        printer.table(&["ID", "QUEUE", "TASK", "WHEN", "REASON", "DETAIL"], letters.iter().map(row));
    }
    if let (true, Some(last)) = (more, letters.last()) {
        printer.note(format!("there are more: --after {}", last.id.0));
    }
    Ok(ExitCode::SUCCESS)
}

/// Longest detail in the list, in characters; `rwork dead show` has all of it.
const DETAIL_MAX: usize = 70;

fn row(letter: &DeadLetter) -> Vec<String> {
    let detail = tame(&letter.reason.detail).replace('\n', " ");
    let mut short: String = detail.chars().take(DETAIL_MAX).collect();
    if short.len() < detail.len() {
        short.push('…');
    }
    vec![
        letter.id.0.clone(),
        letter.queue.to_string(),
        show::task_of(letter).unwrap_or_else(|| "-".to_owned()),
        show::when(letter.reason.at),
        letter.reason.kind.clone(),
        short,
    ]
}

async fn show(context: &Context, broker: &dyn Broker, id: String) -> anyhow::Result<ExitCode> {
    let query = DeadLetterQuery { ids: vec![DeadLetterId(id.clone())], ..DeadLetterQuery::default() };
    let letters = broker.dead_letters(query).await?;
    let letter = letters.first().ok_or_else(|| {
        Failure::failed(format!("there is no dead letter `{id}`")).hint("`rwork dead list` shows their ids")
    })?;
    if context.printer.json() {
        context.printer.document(&show::document(letter))?;
    } else {
        show::print(&context.printer, letter);
    }
    Ok(ExitCode::SUCCESS)
}

fn told(printer: &Printer, what: &str, count: u64) -> anyhow::Result<ExitCode> {
    if printer.json() {
        printer.document(&json!({ what: count }))?;
    } else {
        printer.line(format!("{count} {what}"));
    }
    Ok(if count == 0 { Exit::Failed } else { Exit::Done }.into())
}
