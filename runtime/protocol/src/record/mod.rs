//! The result record: what a result backend stores for a task (`celery-wire.md` §4).

mod codec;
mod exception;
mod extended;
pub mod stored;

use std::fmt;

use bytes::Bytes;

use crate::{TaskId, Timestamp};

pub use codec::RecordError;
pub use exception::RevokeReason;
pub use extended::Extended;

/// A task's state, in Celery's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No record.
    Pending,
    /// Known to a worker (events only).
    Received,
    /// Running, when `track_started` is set.
    Started,
    /// Done. Final: never overwritten.
    Success,
    /// Failed.
    Failure,
    /// Will run again.
    Retry,
    /// Will not run.
    Revoked,
    /// A state of the task's own, such as `PROGRESS`.
    Custom(String),
}

impl State {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Received => "RECEIVED",
            Self::Started => "STARTED",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Retry => "RETRY",
            Self::Revoked => "REVOKED",
            Self::Custom(name) => name,
        }
    }

    /// From the word on the wire.
    pub fn parse(word: &str) -> Self {
        match word {
            "PENDING" => Self::Pending,
            "RECEIVED" => Self::Received,
            "STARTED" => Self::Started,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "RETRY" => Self::Retry,
            "REVOKED" => Self::Revoked,
            other => Self::Custom(other.to_owned()),
        }
    }

    /// Whether nothing more will come (Celery's `READY_STATES`).
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }

    /// Whether `result` is an encoded exception (Celery's `EXCEPTION_STATES`).
    pub fn is_exception(&self) -> bool {
        matches!(self, Self::Failure | Self::Revoked | Self::Retry)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An exception as a record holds one: `{"exc_type": …, "exc_message": […], "exc_module": …}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Class name.
    pub exc_type: String,
    /// The constructor's arguments: one JSON array.
    pub exc_message: Bytes,
    /// Module of the class.
    pub exc_module: String,
}

/// A result record. `result` is JSON already, so that a task's own bytes are stored unparsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub task_id: TaskId,
    /// State.
    pub status: State,
    /// One JSON value; an encoded [`Exception`] where [`State::is_exception`] (or `null` for a retry without cause).
    pub result: Bytes,
    /// Text for FAILURE and RETRY.
    pub traceback: Option<String>,
    /// Tasks spawned by this one: JSON array of result tuples; `None`: `null`.
    pub children: Option<Bytes>,
    /// Only in ready states.
    pub date_done: Option<Timestamp>,
    /// The group it belongs to.
    pub group_id: Option<String>,
    /// The task that sent it.
    pub parent_id: Option<String>,
    /// Digest of the component that ran it, `sha256:…` (rwork's own field; Celery's clients ignore it).
    pub component: Option<String>,
    /// How the task was called, where results are extended (Celery's `result_extended`).
    pub extended: Option<Box<Extended>>,
    /// Every key that is not among these, in order, its value as JSON.
    pub other: Vec<(String, Bytes)>,
}

impl Record {
    /// A record in this state, everything optional absent.
    pub fn new(task_id: TaskId, status: State, result: impl Into<Bytes>) -> Self {
        Self {
            task_id,
            status,
            result: result.into(),
            traceback: None,
            children: None,
            date_done: None,
            group_id: None,
            parent_id: None,
            component: None,
            extended: None,
            other: Vec::new(),
        }
    }

    /// The exception in `result`, where the state says that there is one.
    pub fn exception(&self) -> Option<Exception> {
        if self.status.is_exception() { Exception::decode(&self.result).ok() } else { None }
    }
}

#[cfg(test)]
mod tests;
