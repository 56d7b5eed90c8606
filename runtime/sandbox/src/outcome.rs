//! What comes out of the sandbox: one outcome, and what the run cost.

use std::time::Duration;

use crate::invocation::{Input, Payload};

/// How an invocation ended. Each variant is told apart all the way to the result record and the metrics.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The guest returned a value.
    Success(Payload),
    /// The guest returned an error of its own.
    Failed(Failure),
    /// The guest asks to run again.
    Retry(Retry),
    /// The guest asks that nothing be stored.
    Ignore,
    /// The guest refuses the message.
    Reject {
        /// True: back to the queue; false: to the dead letters.
        requeue: bool,
        /// Why.
        reason: String,
    },
    /// The guest's place is taken by this encoded signature.
    Replace(Payload),
    /// The soft time limit passed, and the guest failed with it.
    SoftTimeLimit {
        /// The limit.
        limit: Duration,
        /// What the guest reported.
        failure: Failure,
    },
    /// Ended at the hard time limit.
    HardTimeLimit {
        /// The limit.
        limit: Duration,
        /// Where it was, when it was in guest code.
        backtrace: Option<String>,
    },
    /// Ended for want of memory.
    MemoryLimit {
        /// The cap, in bytes.
        cap: usize,
        /// The total that was asked for, in bytes.
        wanted: usize,
    },
    /// The result is larger than the limit.
    ResultTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Its size, in bytes; a lower bound for one that was refused before it was copied.
        size: usize,
    },
    /// A trap or a panic.
    Trap(Trap),
    /// Stopped by [`crate::Stop::kill`] (revoked, or shutdown past its deadline).
    Killed(KillReason),
    /// rwork's own failure: the guest is not to blame, the task may be run again.
    HostFault(String),
}

impl Outcome {
    /// Bytes of what the guest returned.
    pub fn result_bytes(&self) -> usize {
        let failure = |failure: &Failure| {
            failure.exc_args.data.len() + failure.traceback.as_ref().map_or(0, String::len)
        };
        match self {
            Self::Success(payload) | Self::Replace(payload) => payload.data.len(),
            Self::Failed(failed) | Self::SoftTimeLimit { failure: failed, .. } => failure(failed),
            Self::Retry(retry) => {
                let input = retry.input.as_ref().map_or(0, Input::size);
                input + retry.cause.as_ref().map_or(0, failure)
            }
            _ => 0,
        }
    }
}

/// Who ended an invocation from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillReason {
    /// The task was revoked with `terminate`.
    Revoked,
    /// The worker is shutting down and its deadline passed.
    Shutdown,
}

/// An exception, as Celery stores one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Class name.
    pub exc_type: String,
    /// Module of the class.
    pub exc_module: Option<String>,
    /// The exception's arguments: one encoded array.
    pub exc_args: Payload,
    /// One line for people.
    pub message: String,
    /// The guest's traceback.
    pub traceback: Option<String>,
    /// False: never retried automatically.
    pub retryable: bool,
}

/// How often a task may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryLimit {
    /// As the task declares.
    Inherit,
    /// For ever.
    Unlimited,
    /// So many attempts after the first.
    AtMost(u32),
}

/// A wish to run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// None: the task's own delay or back-off.
    pub delay: Option<Duration>,
    /// Overrides the task's limit for this call.
    pub limit: RetryLimit,
    /// Replaces the input of the next attempt.
    pub input: Option<Input>,
    /// Becomes the failure when no attempt is left.
    pub cause: Option<Failure>,
    /// A JSON object of message options by Celery's names; empty: none.
    pub options: String,
}

/// A trap or a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// What happened, in the field's words: `panicked at src/lib.rs:3:5: boom`, `call stack exhausted`.
    pub message: String,
    /// The guest's frames, demangled.
    pub backtrace: Option<String>,
    /// The end of what the guest wrote to stderr.
    pub stderr: String,
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From the start of execution to the outcome.
    pub wall: Duration,
    /// Time on a CPU slot.
    pub cpu: Duration,
    /// Largest sum of all linear memories, in bytes.
    pub memory_bytes_peak: usize,
    /// Bytes of log, stdout and stderr that were cut.
    pub log_bytes_dropped: u64,
}

/// An outcome and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What it cost.
    pub usage: Usage,
}
