//! What can be wrong with a message.

use crate::json::{self, Kind};
use crate::{CompressionError, SignedError, TaskId, TaskMessage, TaskName, TranscodeError};

/// A message that can't become a request. It names the task as far as that was found out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// The task's name, when it was read before the fault was met.
    pub task: Option<TaskName>,
    /// The task's id, when it was read before the fault was met.
    pub task_id: Option<TaskId>,
}

impl DecodeError {
    /// A stable word for programs, as dead letters carry it.
    pub fn kind(&self) -> &'static str {
        self.fault.kind()
    }

    /// The whole message, when only its arguments are of the wrong kind: its task fails with `TypeError`, so that whoever
    /// waits for it is told.
    pub fn into_request(self) -> Option<(Box<TaskMessage>, String)> {
        let text = self.fault.to_string();
        match self.fault {
            Fault::Arguments { message, .. } => Some((message, text)),
            _ => None,
        }
    }
}

impl From<Fault> for DecodeError {
    fn from(fault: Fault) -> Self {
        Self { fault, task: None, task_id: None }
    }
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A part is over its limit; nothing was parsed.
    #[error("expected {part} of at most {limit} bytes, found {size}")]
    TooLarge {
        /// `headers` or `a body`.
        part: &'static str,
        /// The limit, in bytes.
        limit: usize,
        /// Its size, in bytes.
        size: usize,
    },
    /// The body's encoding is not one that is taken.
    #[error("expected {expected}, found {found}")]
    ContentRefused {
        /// What would do.
        expected: String,
        /// What the message says of itself.
        found: String,
    },
    /// The body can't be decompressed.
    #[error("expected a body that can be decompressed: {0}")]
    Compression(CompressionError),
    /// The body is signed, and can't be trusted.
    #[error("expected a signed body that can be trusted: {0}")]
    Untrusted(SignedError),
    /// The body is not what its content type claims.
    #[error("expected the body to be {format}: {why}")]
    Transcode {
        /// The format.
        format: &'static str,
        /// What is wrong with it.
        why: TranscodeError,
    },
    /// A part is not the JSON that it claims to be.
    #[error("expected {part} to be {expected}: {why}")]
    Undecodable {
        /// The part.
        part: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What the parser met, and where.
        why: json::Error,
    },
    /// One of kombu's typed values (`{"__type__": …, "__value__": …}`) has a type that nobody knows, or a value that is not
    /// of its type.
    #[error("expected typed values that kombu can read: {0}")]
    TypedValue(json::Error),
    /// A part is JSON of the wrong shape.
    #[error("expected {part} to be {expected}, found {found}")]
    Shape {
        /// The part.
        part: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Nothing names a task.
    #[error("expected a header `task` or a body with `task`, found {found}")]
    UnknownMessage {
        /// What was there instead.
        found: String,
    },
    /// A header that a worker can't do without is missing.
    #[error("expected a header `{name}`, found none")]
    MissingHeader {
        /// The header.
        name: &'static str,
    },
    /// A header that decides something can't be understood.
    #[error("expected header `{name}` to be {expected}, found `{found}`")]
    InvalidHeader {
        /// The header.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
        /// Its beginning.
        found: String,
    },
    /// Arguments that can't be passed to anything.
    #[error("{part} must be {expected}, not {found}")]
    Arguments {
        /// `args` or `kwargs`.
        part: &'static str,
        /// `an array` or `an object`.
        expected: &'static str,
        /// What it is.
        found: Kind,
        /// The message, with `[]` and `{}` in place of what can't be passed.
        message: Box<TaskMessage>,
    },
}

impl Fault {
    /// A stable word for programs, as dead letters carry it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. }
            | Self::Compression(CompressionError::TooLarge(_))
            | Self::Transcode { why: TranscodeError::TooLarge(_), .. } => "too-large",
            Self::Compression(_) | Self::Transcode { .. } | Self::TypedValue(_) => "undecodable",
            Self::ContentRefused { .. } => "content-refused",
            Self::Undecodable { .. } | Self::Shape { .. } => "undecodable",
            Self::Untrusted(_) => "untrusted",
            Self::UnknownMessage { .. } => "unknown-message",
            Self::MissingHeader { .. } | Self::InvalidHeader { .. } => "invalid-header",
            Self::Arguments { .. } => "invalid-arguments",
        }
    }
}
