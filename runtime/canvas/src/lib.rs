//! What is published after an outcome: a pure function from message and outcome.
//!
//! It owns the order of chains, the callbacks, the errbacks, retries and replacements (`celery/canvas.py`,
//! `celery/app/trace.py`, `celery/app/task.py`). It reads no clock, makes no id and no random number of its own
//! ([`Context`]), and sends nothing: the worker publishes what [`Next`] says.
//!
//! Never here: stores, sockets, async. Chords, and groups that are followed by a step, need a backend that can count; until
//! there is one they are refused by [`Error::NeedsChordCounter`].

mod apply;
mod compose;
mod error;
mod next;
mod options;
mod retry;
mod tuple;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use rwork_protocol::{QueueName, TaskId, TaskMessage, TaskName, Timestamp};

pub use apply::apply;
pub use error::Error;
pub use next::{on_failure, on_success, replace};
pub use retry::{Backoff, RetrySpec, backoff, may_retry, retry};

/// Most messages that one outcome may lead to. Ten thousand publishes of one task fit any broker's batch; what needs more
/// can send groups from its members.
pub const FAN_OUT_MAX: usize = 10_000;

/// What canvas needs from outside.
pub struct Context<'a> {
    /// The wall clock.
    pub now: Timestamp,
    /// What new messages name as their producer: `gen<pid>@<host>`.
    pub origin: Option<&'a str>,
    /// Makes task and group ids.
    pub ids: &'a mut dyn FnMut() -> TaskId,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("now", &self.now)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to; `None`: where the worker's own routing sends this task.
    pub queue: Option<QueueName>,
    /// The message.
    pub message: TaskMessage,
    /// To be held back until then (the message's own `eta`).
    pub eta: Option<Timestamp>,
}

/// The task in whose name something is sent.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Its id.
    pub id: &'a TaskId,
    /// The first task of its workflow.
    pub root: &'a TaskId,
}

impl<'a> From<&'a TaskMessage> for Parent<'a> {
    fn from(message: &'a TaskMessage) -> Self {
        Self { id: &message.headers.id, root: message.headers.root() }
    }
}

/// What sending a signature comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What is to be published, in order.
    pub publish: Vec<Outgoing>,
    /// The result tuple for the parent's `children`; `None`: nothing was sent.
    pub child: Option<Bytes>,
    /// Under which id the whole's result will be found: the last step's of a chain, a group's own.
    pub id: Option<TaskId>,
}

/// What follows an outcome.
#[derive(Debug, Default, PartialEq)]
pub struct Next {
    /// What is to be published, in order.
    pub publish: Vec<Outgoing>,
    /// Result tuples of what was sent, as one JSON array, to be appended to what the task sent while it ran; `None`: nothing.
    pub children: Option<Bytes>,
    /// Steps that will never run: the same failure is to be stored for each.
    pub also_fail: Vec<FailedStep>,
    /// Errbacks that could not be sent. They never change the outcome; the worker logs them.
    pub refused: Vec<Error>,
}

/// A step of a chain that will never run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStep {
    /// Its task id.
    pub id: TaskId,
    /// The group it belongs to.
    pub group_id: Option<String>,
    /// The task that it would have called.
    pub task: TaskName,
    /// Its positional arguments: one JSON array.
    pub args: Bytes,
    /// Its keyword arguments: one JSON object.
    pub kwargs: Bytes,
}
