//! What keeps a worker from running at all. A bad task never does.

/// A worker's own failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range; found before anything was started.
    #[error("expected `{setting}` to be {expected}, got `{got}`")]
    Setting {
        /// Its name in [`crate::WorkerConfig`].
        setting: &'static str,
        /// What would do.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The broker refuses us in a way that waiting does not mend.
    #[error("failed to consume from {queues}")]
    Consume {
        /// The queues, each in backticks.
        queues: String,
        /// The broker's answer.
        source: rwork_broker::Error,
    },
    /// The worker's own part that receives is gone. What is held is redelivered.
    #[error("the receiver ended before its worker: this is a bug")]
    Receiver,
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Setting { .. } | Self::Receiver => None,
            Self::Consume { source, .. } => source.hint(),
        }
    }
}
