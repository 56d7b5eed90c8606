//! Consumers as a store knows them.

use std::collections::BTreeMap;

use rwork_broker::{Batch, Committed, Consume, Receipt};
use rwork_protocol::QueueName;

use crate::messages::Serial;

/// The identity of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// Mark that tells one line of a consumer from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Identity that each call of a consumer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The consumer.
    pub consumer: ConsumerId,
    /// Its token when the call was made.
    pub token: Token,
    /// The store's incarnation that the consumer began under.
    pub incarnation: u64,
}

/// One delivery that a consumer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The message.
    pub serial: Serial,
    /// Starts that were written down, plus this one.
    pub count: u32,
}

/// A consumer, alive or not.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) token: Token,
    pub(crate) queues: Vec<QueueName>,
    pub(crate) unsettled_max: usize,
    pub(crate) held: BTreeMap<Receipt, Held>,
    /// The last batch with its answers.
    pub(crate) last: Option<(Batch, Vec<Committed>)>,
    /// Goes up with each renewal.
    pub(crate) counter: u64,
    /// Found dead: holds nothing, and is kept for the answers of its last batch.
    pub(crate) is_dead: bool,
}

impl Member {
    pub(crate) fn new(options: &Consume, token: Token) -> Self {
        Self {
            token,
            queues: options.queues.clone(),
            unsettled_max: options.unsettled_max,
            held: BTreeMap::new(),
            last: None,
            counter: 0,
            is_dead: false,
        }
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.last.as_ref().map_or(0, |(batch, _)| batch.number)
    }

    pub(crate) fn room(&self) -> usize {
        self.unsettled_max.saturating_sub(self.held.len())
    }
}
