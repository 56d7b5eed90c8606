//! Collecting what the producer does not know, when all is over.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use rwork_backend::ResultBackend;
use rwork_broker::{Broker, DeadLetterQuery};
use rwork_protocol::{DecodeLimits, TaskId, Timestamp, decode};

use super::{Decision, History, Kill, Line, Loss, Producer, Receipt, Word};
use crate::journal::{Entry, Journal};

/// Records read in one round trip.
const RECORDS: usize = 500;

impl History {
    /// Collects everything. The workers must have ended, so that nothing is on its way any more.
    ///
    /// # Errors
    /// When something can't be read, or the tasks' log holds what is no line of it.
    pub async fn gather(
        producer: Producer,
        log: &Path,
        kills: Vec<Kill>,
        journal: &Journal,
        broker: &dyn Broker,
        backend: &dyn ResultBackend,
    ) -> anyhow::Result<Self> {
        let (accepted, unsure, follows) = (producer.accepted, producer.unsure, producer.follows);
        let numbers: HashMap<TaskId, u64> =
            accepted.iter().map(|(number, id)| (id.clone(), *number)).collect();
        let mut history = Self { accepted, unsure, follows, kills, ..Self::default() };
        history.lines = lines(log)?;
        let entries = journal.so_far();
        history.receipts = entries.iter().filter_map(|entry| receipt(entry, &numbers)).collect();
        history.decisions = entries.iter().filter_map(|entry| decision(entry, &numbers)).collect();
        history.losses = entries.iter().filter_map(loss).collect();
        history.add_records(backend).await?;
        history.add_leftovers(broker, &numbers).await?;
        Ok(history)
    }

    async fn add_records(&mut self, backend: &dyn ResultBackend) -> anyhow::Result<()> {
        let all: Vec<(u64, TaskId)> =
            self.accepted.iter().map(|(number, id)| (*number, id.clone())).collect();
        for part in all.chunks(RECORDS) {
            let ids: Vec<TaskId> = part.iter().map(|(_, id)| id.clone()).collect();
            for ((number, _), record) in part.iter().zip(backend.get(&ids).await?) {
                if let Some(record) = record.filter(|record| record.status.is_ready()) {
                    self.records.insert(*number, record);
                }
            }
        }
        Ok(())
    }

    async fn add_leftovers(
        &mut self,
        broker: &dyn Broker,
        numbers: &HashMap<TaskId, u64>,
    ) -> anyhow::Result<()> {
        for letter in broker.dead_letters(DeadLetterQuery::default()).await? {
            let message = decode(&letter.message, &DecodeLimits::default())
                .context("a dead letter of ours can't be read")?;
            let number = numbers.get(&message.headers.id).context("a dead letter that nobody sent")?;
            self.dead.insert(*number, format!("{}: {}", letter.reason.kind, letter.reason.detail));
        }
        self.left =
            broker.queues().await?.iter().map(|queue| queue.ready + queue.unsettled + queue.delayed).sum();
        Ok(())
    }
}

/// What the tasks wrote down, in order.
///
/// # Errors
/// When the log can't be read, or holds what is no line of it.
pub fn lines(log: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("failed to read {}", log.display()))?;
    let line = |line| read(line).with_context(|| format!("`{line}` is no line of a task"));
    text.lines().map(line).collect()
}

/// `start 17 w0-1@site 1795233589898`
fn read(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let word = match words.next()? {
        "start" => Word::Start,
        "end" => Word::End,
        _ => return None,
    };
    let number = words.next()?.parse().ok()?;
    let node = words.next()?.to_owned();
    let at = Timestamp::from_millis(words.next()?.parse().ok()?);
    words.next().is_none().then_some(Line { number, word, node, at })
}

/// A retry has the id of the attempt before, and is another message: it is no receipt of this one.
fn receipt(entry: &Entry, numbers: &HashMap<TaskId, u64>) -> Option<Receipt> {
    let number =
        number_if(entry, "task received", numbers).filter(|_| entry.number("retries").unwrap_or(0) == 0)?;
    let deliveries = entry.number("deliveries")?;
    Some(Receipt { number, node: entry.node.to_string(), at: entry.at()?, deliveries })
}

fn decision(entry: &Entry, numbers: &HashMap<TaskId, u64>) -> Option<Decision> {
    let number = number_if(entry, "task started", numbers)?;
    Some(Decision { number, node: entry.node.to_string(), at: entry.at()? })
}

fn loss(entry: &Entry) -> Option<Loss> {
    let is_one = entry.says("lost the broker: what was held will be redelivered");
    is_one.then(|| Some(Loss { node: entry.node.to_string(), at: entry.at()? })).flatten()
}

/// The task's number, where the entry says this.
fn number_if(entry: &Entry, message: &str, numbers: &HashMap<TaskId, u64>) -> Option<u64> {
    let id = entry.says(message).then(|| entry.field("task_id")).flatten()?;
    numbers.get(&TaskId::new(id).ok()?).copied()
}
