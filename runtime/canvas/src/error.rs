//! What can't be sent.

use rwork_protocol::{InvalidName, SignatureError, json};

/// A signature or its options that can't be sent.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It needs somebody to count the members of a group.
    #[error("{what} needs a result backend that can count chords, which none can yet")]
    NeedsChordCounter {
        /// `a chord`, or what becomes one.
        what: &'static str,
    },
    /// There is no such thing as this signature, or it can't be used here.
    #[error("expected {expected}, found {found}")]
    Unsupported {
        /// What would do.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// More messages than [`crate::FAN_OUT_MAX`].
    #[error("expected at most {limit} messages from one outcome, got more")]
    FanOut {
        /// The limit.
        limit: usize,
    },
    /// Not a signature.
    #[error("failed to read a signature")]
    Signature(#[from] SignatureError),
    /// Arguments or members that are not the JSON they should be.
    #[error("failed to read {what}")]
    Json {
        /// The part.
        what: &'static str,
        /// What the parser met, and where.
        source: json::Error,
    },
    /// An option has a value that can't be used.
    #[error("expected option `{name}` to be {expected}, found `{found}`")]
    Option {
        /// The option.
        name: String,
        /// What it should be.
        expected: &'static str,
        /// Its beginning.
        found: String,
    },
    /// An id or a name that can't be one.
    #[error("failed to use option `{name}`")]
    Name {
        /// The option.
        name: &'static str,
        /// What is wrong with it.
        source: InvalidName,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NeedsChordCounter { .. } => Some(
                "send the members as a group, and the task that needs their results from the last of them",
            ),
            _ => None,
        }
    }
}
