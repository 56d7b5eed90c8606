//! Messages that can't be run, kept with their reason.

use rwork_protocol::{Message, QueueName, Timestamp};

/// Why a message became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable word for programs: `unknown-task`, `undecodable`, `content-refused`, `too-large`, `too-many-deliveries`,
    /// `rejected`, ...
    pub kind: String,
    /// One line for people: what was expected and what was found.
    pub detail: String,
    /// Node name of the worker that gave it up.
    pub worker: String,
    /// When.
    pub at: Timestamp,
}

/// Name of one dead letter, unique within its broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadLetterId(pub String);

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name here.
    pub id: DeadLetterId,
    /// The queue it came from.
    pub queue: QueueName,
    /// Deliveries it had.
    pub delivery_count: u32,
    /// The message, byte for byte.
    pub message: Message,
    /// Why, when, by whom.
    pub reason: Reason,
}

/// Which dead letters. Every condition that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Only these, when not empty.
    pub ids: Vec<DeadLetterId>,
    /// Only from this queue.
    pub queue: Option<QueueName>,
    /// At most so many; `None`: all.
    pub limit: Option<usize>,
    /// Only after this one, in the order of [`crate::Broker::dead_letters`].
    pub after: Option<DeadLetterId>,
}
