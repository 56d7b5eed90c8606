//! What a guest's imports with effects reach: implemented by the worker, so that the sandbox has never heard of brokers.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::invocation::Payload;
use crate::outcome::Failure;

/// Severity of a guest's log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Finest.
    Trace,
    /// For authors.
    Debug,
    /// For operators.
    Info,
    /// Something is off.
    Warn,
    /// Something failed.
    Error,
}

/// Where a line of a guest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// `rwork:task/log`.
    Log,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A published signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The task whose result is the signature's.
    pub id: String,
    /// Celery's result tuple, as JSON.
    pub result_tuple: String,
}

/// Why an import with effects failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not granted.
    #[error("not granted: {0}")]
    Denied(String),
    /// The request itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Over a limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// Broker or backend out of reach.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// No result in time.
    #[error("timed out")]
    TimedOut,
    /// The awaited task failed.
    #[error("the awaited task failed: {}", .0.message)]
    Failed(Failure),
}

/// The effects that a guest can have through `rwork:task`. One object per invocation: it knows the message.
///
/// Every method is called on the I/O runtime and may be cancelled by dropping its future.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Whether lines of this level are kept.
    fn log_enabled(&self, level: Level) -> bool;

    /// One line, already within the byte budget and free of control characters. Must not block.
    fn log(&self, source: LogSource, level: Level, message: &str, fields: &[(String, String)]);

    /// Asks for memory for a result of so many bytes, before it leaves its guest; `None`: it is there. Otherwise the
    /// instance keeps its slot until the future resolves.
    fn hold_result(&self, bytes: usize) -> Option<BoxFuture<'static, ()>> {
        let _ = bytes;
        None
    }

    /// Stores a custom state (`rwork:task/progress`).
    ///
    /// # Errors
    /// As [`HostError`] says.
    async fn progress(&self, state: String, meta: Payload) -> Result<(), HostError>;

    /// Publishes signatures, all or none, and waits for the confirmation (`rwork:task/submit`).
    ///
    /// # Errors
    /// As [`HostError`] says.
    async fn submit(&self, signatures: Vec<Payload>) -> Result<Vec<Submitted>, HostError>;

    /// Waits for the result of a task.
    ///
    /// # Errors
    /// [`HostError::TimedOut`], [`HostError::Failed`] or as [`HostError`] says.
    async fn await_result(&self, id: String, timeout: Duration) -> Result<Payload, HostError>;
}

/// A host for calls that belong to no message, such as `describe`: logs go to `tracing`, effects are denied.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

#[async_trait]
impl Host for NoHost {
    fn log_enabled(&self, level: Level) -> bool {
        level > Level::Trace
    }

    fn log(&self, source: LogSource, level: Level, message: &str, _fields: &[(String, String)]) {
        tracing::debug!(?source, ?level, "{message}");
    }

    async fn progress(&self, _state: String, _meta: Payload) -> Result<(), HostError> {
        Err(no_task())
    }

    async fn submit(&self, _signatures: Vec<Payload>) -> Result<Vec<Submitted>, HostError> {
        Err(no_task())
    }

    async fn await_result(&self, _id: String, _timeout: Duration) -> Result<Payload, HostError> {
        Err(no_task())
    }
}

fn no_task() -> HostError {
    HostError::Denied("no task is running".to_owned())
}
