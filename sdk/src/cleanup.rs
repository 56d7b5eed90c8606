//! Tidying up after a task that could not do so itself.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::TaskError;
use crate::call::{Input, Parameters, bind};

/// Why the run of a task was ended from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// It was still running at its hard time limit.
    HardTimeLimit,
    /// It asked for more memory than it may have.
    MemoryLimit,
    /// It panicked, or trapped otherwise.
    Trap(String),
    /// It was revoked, and did not stop by itself.
    Revoked,
    /// Something else, in the host's words.
    Other(String),
}

/// A run that was ended from outside, as its cleanup function sees it.
///
/// `#[rwork::task(cleanup = tidy)]` names a function `fn tidy(ctx: &Context, ended: &Ended)`. It runs in a new instance,
/// under small limits of its own, and what it returns or how it fails changes nothing.
#[derive(Debug)]
pub struct Ended<'a> {
    reason: EndReason,
    input: &'a Input,
    parameters: &'a Parameters,
}

impl<'a> Ended<'a> {
    pub(crate) fn new(reason: EndReason, input: &'a Input, parameters: &'a Parameters) -> Self {
        Self { reason, input, parameters }
    }

    /// Why it ended.
    pub fn reason(&self) -> &EndReason {
        &self.reason
    }

    /// The call, as it came.
    pub fn input(&self) -> &Input {
        self.input
    }

    /// An argument of the call by its parameter's name; none when the call left it to its default.
    ///
    /// # Errors
    ///
    /// `TypeError` when the call does not fit the task, or the argument is of another type.
    pub fn argument<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, TaskError> {
        bind(self.parameters, self.input)?.by_name(name)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HardTimeLimit => f.write_str("hard time limit"),
            Self::MemoryLimit => f.write_str("memory limit"),
            Self::Trap(what) => write!(f, "trap: {what}"),
            Self::Revoked => f.write_str("revoked"),
            Self::Other(what) => f.write_str(what),
        }
    }
}
