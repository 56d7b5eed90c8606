//! What can go wrong for a producer.

use std::time::Duration;

use rwork_protocol::{InvalidArguments, QueueName, State, TaskId, TaskName};

/// A producer's failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The task can't be sent with these arguments or headers.
    #[error("failed to build a message for `{task}`")]
    Arguments {
        /// The task.
        task: TaskName,
        /// What is wrong with them.
        source: InvalidArguments,
    },
    /// The message is larger than the broker takes.
    #[error("expected a message for `{task}` of at most {limit} bytes, got {size}")]
    TooLarge {
        /// The task.
        task: TaskName,
        /// Its size, in bytes.
        size: usize,
        /// The broker's limit, in bytes.
        limit: usize,
    },
    /// The broker didn't take the messages.
    #[error("failed to send {count} message(s) to queue `{queue}`")]
    Send {
        /// How many.
        count: usize,
        /// Where to.
        queue: QueueName,
        /// The broker's error.
        source: rwork_broker::Error,
    },
    /// The record can't be read.
    #[error("failed to read the result of task `{id}`")]
    Read {
        /// The task.
        id: TaskId,
        /// The backend's error.
        source: rwork_backend::Error,
    },
    /// The record can't be deleted.
    #[error("failed to delete the result of task `{id}`")]
    Forget {
        /// The task.
        id: TaskId,
        /// The backend's error.
        source: rwork_backend::Error,
    },
    /// The task had not ended in time.
    #[error("task `{id}` was {state} after {timeout:?}, expected it to have ended")]
    TimedOut {
        /// The task.
        id: TaskId,
        /// How long was waited.
        timeout: Duration,
        /// Its last state.
        state: State,
    },
    /// The backend stopped telling before the task had ended.
    #[error("the result backend stopped watching task `{id}` while it was {state}")]
    Ended {
        /// The task.
        id: TaskId,
        /// Its last state.
        state: State,
    },
}

impl Error {
    /// Whether the same call can succeed later without anybody mending anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Send { source, .. } | Self::Read { source, .. } | Self::Forget { source, .. } => {
                source.is_retryable()
            }
            Self::TimedOut { .. } | Self::Ended { .. } => true,
            Self::Arguments { .. } | Self::TooLarge { .. } => false,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Send { source, .. } | Self::Read { source, .. } | Self::Forget { source, .. } => {
                source.hint()
            }
            Self::TooLarge { .. } => Some("send a reference to the data instead of the data"),
            Self::TimedOut { state: State::Pending, .. } => {
                Some("is a worker running that consumes the queue and stores results? See `rwork queues`")
            }
            Self::Arguments { .. } | Self::TimedOut { .. } | Self::Ended { .. } => None,
        }
    }
}
