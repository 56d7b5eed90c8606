//! One history: what stands in the model, and what stands in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use rwork_broker::{Batch, Committed, Consumer, Ownership, Receipt};
use rwork_model::{ConsumerId, Line, Rules, Store, Token};
use rwork_protocol::{QueueName, TaskId, Timestamp};

use super::real::Real;
use super::steps;

/// Calls of one history.
const STEPS: usize = 60;

/// A consumer, on both sides.
pub(super) struct Both {
    pub(super) line: Line,
    pub(super) real: Box<dyn Consumer>,
    /// The number of its last batch.
    pub(super) number: u64,
    /// That batch and its answers.
    pub(super) last: Option<(Batch, Vec<Committed>)>,
    /// Deliveries that it does not hold any more.
    pub(super) settled: Vec<Receipt>,
}

/// Everything that a history knows.
pub(super) struct History {
    pub(super) rng: fastrand::Rng,
    pub(super) model: Store,
    pub(super) real: Real,
    pub(super) consumers: Vec<Both>,
    /// Ids of tasks of which there may be a record.
    pub(super) tasks: BTreeSet<TaskId>,
    /// Bodies that came already, and the last one that came first-hand, of each queue.
    pub(super) seen: BTreeSet<Vec<u8>>,
    pub(super) last_fresh: BTreeMap<QueueName, u64>,
    /// Messages that were held back.
    pub(super) delayed: BTreeSet<u64>,
    /// Numbers of messages, ids and tokens.
    pub(super) numbers: u64,
    pub(super) has_died: bool,
    story: Vec<String>,
}

pub(super) fn queues() -> [QueueName; 2] {
    ["a", "b"].map(|name| QueueName::new(name).unwrap())
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// Runs one history; the difference, with the story that led to it, where there is one.
pub(super) async fn run(seed: u64, real: Real) -> anyhow::Result<()> {
    let capabilities = real.broker.capabilities();
    let rules = Rules {
        ownership: capabilities.ownership,
        commits_records: capabilities.commits_records,
        closed_queues: BTreeSet::new(),
        unstorable: |_| false,
    };
    let mut history = History {
        rng: fastrand::Rng::with_seed(seed),
        model: Store::new(rules),
        real,
        consumers: Vec::new(),
        tasks: BTreeSet::new(),
        seen: BTreeSet::new(),
        last_fresh: BTreeMap::new(),
        delayed: BTreeSet::new(),
        numbers: 0,
        has_died: false,
        story: Vec::new(),
    };
    for _ in 0..STEPS {
        let outcome = steps::step(&mut history).await;
        outcome.with_context(|| history.story.join("\n"))?;
        steps::compare(&mut history).await.with_context(|| history.story.join("\n"))?;
    }
    for both in std::mem::take(&mut history.consumers) {
        both.real.close(&[]).await?;
    }
    Ok(())
}

impl History {
    /// A line of the story.
    pub(super) fn tell(&mut self, line: String) {
        self.story.push(line);
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A new consumer's id and token.
    pub(super) fn line(&mut self, incarnation: u64) -> Line {
        Line { consumer: ConsumerId(self.number()), token: Token(1), incarnation }
    }

    /// Interval of a consumer's renewals.
    pub(super) fn renewal_interval(&self) -> Duration {
        match self.model.rules.ownership {
            Ownership::Lease(lease) => lease / 5,
            Ownership::Process | Ownership::Connection => Duration::from_millis(100),
        }
    }

    /// Deliveries that one consumer holds.
    pub(super) fn held(&self, nth: usize) -> Vec<Receipt> {
        self.model.held(self.consumers[nth].line.consumer).map(|(receipt, _)| receipt).collect()
    }
}
