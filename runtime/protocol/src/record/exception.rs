//! The exceptions that rwork itself stores, so that a Python client raises its own classes (`celery-wire.md` §4.4).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::Exception;
use crate::json::{self, Kind, write_seconds};
use crate::{TaskId, TaskName, repr};

/// Module of Celery's own exceptions.
const CELERY: &str = "celery.exceptions";
/// Module of the exceptions of Celery's process pool; clients have it loaded.
const POOL: &str = "billiard.exceptions";
/// Module of Python's own.
const BUILTINS: &str = "builtins";
/// Module of the exceptions that Celery has no class for.
const RWORK: &str = "rwork.errors";

/// Why a task was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    /// By command, before it ran.
    Revoked,
    /// Its `expires` passed before it ran.
    Expired,
    /// By command, while it ran.
    Terminated,
}

impl RevokeReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Terminated => "terminated",
        }
    }
}

impl Exception {
    /// An exception of one textual argument, the message.
    pub fn new(exc_module: &str, exc_type: &str, message: &str) -> Self {
        Self::with_args(exc_module, exc_type, json::array_of(&[json::string(message)]))
    }

    /// An exception with these arguments: one JSON array.
    pub fn with_args(exc_module: &str, exc_type: &str, args: impl Into<Bytes>) -> Self {
        Self { exc_type: exc_type.to_owned(), exc_message: args.into(), exc_module: exc_module.to_owned() }
    }

    /// The soft time limit passed and the task gave up.
    pub fn soft_time_limit() -> Self {
        Self::with_args(POOL, "SoftTimeLimitExceeded", &b"[]"[..])
    }

    /// Ended at the hard time limit.
    pub fn hard_time_limit(limit: Duration) -> Self {
        let mut seconds = Vec::new();
        write_seconds(&mut seconds, limit);
        Self::with_args(POOL, "TimeLimitExceeded", json::array_of(&[seconds]))
    }

    /// What ran it vanished: `Worker exited prematurely: …`.
    pub fn worker_lost(message: &str) -> Self {
        Self::new(POOL, "WorkerLostError", message)
    }

    /// No plugin has such a task.
    pub fn not_registered(task: &TaskName) -> Self {
        Self::new(CELERY, "NotRegistered", task.as_str())
    }

    /// It was not to run, or not to go on.
    pub fn revoked(reason: RevokeReason) -> Self {
        Self::new(CELERY, "TaskRevokedError", reason.as_str())
    }

    /// No attempt is left, and the task named no cause.
    pub fn max_retries_exceeded(task: &TaskName, id: &TaskId, args: &[u8], kwargs: &[u8]) -> Self {
        let (args, kwargs) = (repr::args(args), repr::kwargs(kwargs));
        let message = format!("Can't retry {task}[{id}] args:{args} kwargs:{kwargs}");
        Self::new(CELERY, "MaxRetriesExceededError", &message)
    }

    /// The task refused its message, which is a dead letter now.
    pub fn reject(reason: &str) -> Self {
        Self::with_args(
            CELERY,
            "Reject",
            json::array_of(&[json::string(reason), Bytes::from_static(b"false")]),
        )
    }

    /// The message's arguments can't be passed to anything.
    pub fn type_error(message: &str) -> Self {
        Self::new(BUILTINS, "TypeError", message)
    }

    /// A member of a chord's header failed.
    pub fn chord_dependency(id: &TaskId, cause: &Self) -> Self {
        Self::new(CELERY, "ChordError", &format!("Dependency {id} raised {cause}"))
    }

    /// Ended for want of memory; both in bytes.
    pub fn memory_limit(cap: usize, wanted: usize) -> Self {
        let message = format!("memory limit of {cap} bytes exceeded: {wanted} bytes were asked for");
        Self::new(RWORK, "MemoryLimitExceeded", &message)
    }

    /// The result is over its limit; both in bytes.
    pub fn result_too_large(limit: usize, size: usize) -> Self {
        let message = format!("expected a result of at most {limit} bytes, got {size}");
        Self::new(RWORK, "ResultTooLarge", &message)
    }

    /// The task's code trapped or panicked.
    pub fn trap(message: &str) -> Self {
        Self::new(RWORK, "Trap", message)
    }

    /// rwork's own failure.
    pub fn host_fault(message: &str) -> Self {
        Self::new(RWORK, "HostFault", message)
    }
}

/// As Python's `repr`: `ValueError('bad thing', 7)`.
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = if Kind::of(&self.exc_message) == Some(Kind::Array) {
            repr::args(&self.exc_message)
        } else {
            String::new()
        };
        let args = args.strip_suffix(",)").map_or(args.clone(), |one| format!("{one})"));
        write!(f, "{}{}", self.exc_type, if args.is_empty() { "()" } else { &args })
    }
}
