//! What goes into the sandbox: one call of one task, and what it may do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::host::Host;
use crate::stop::Stop;

/// One encoded value and its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// For example `application/json`.
    pub content_type: String,
    /// The encoded value.
    pub data: Bytes,
}

impl Payload {
    /// A payload of `application/json`.
    pub fn json(data: impl Into<Bytes>) -> Self {
        Self { content_type: JSON.to_owned(), data: data.into() }
    }
}

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// What a task is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Celery's call shape.
    Call {
        /// Encoding of both parts; one that the task accepts.
        content_type: String,
        /// One encoded array.
        args: Bytes,
        /// One encoded map.
        kwargs: Bytes,
    },
    /// A body of another shape, untouched.
    Raw(Payload),
}

impl Input {
    /// Bytes that it carries.
    pub fn size(&self) -> usize {
        match self {
            Self::Call { args, kwargs, .. } => args.len() + kwargs.len(),
            Self::Raw(payload) => payload.data.len(),
        }
    }
}

/// What a task can ask about the message it runs for (`rwork:task/request`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// First task of the workflow.
    pub root_id: String,
    /// The task that sent this one.
    pub parent_id: Option<String>,
    /// The group this task belongs to.
    pub group_id: Option<String>,
    /// Its place in the group.
    pub group_index: Option<u32>,
    /// Attempts that ended in a retry before this one.
    pub retries: u32,
    /// Deliveries of this message, this one included.
    pub delivery_count: u32,
    /// Whether the broker marked it as delivered before.
    pub redelivered: bool,
    /// Queue it came from.
    pub queue: String,
    /// Message priority.
    pub priority: Option<u8>,
    /// Node name of the worker.
    pub hostname: String,
    /// Producer.
    pub origin: Option<String>,
    /// Correlation id of the message.
    pub correlation_id: Option<String>,
    /// Where an rpc result goes.
    pub reply_to: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub eta_unix_ms: Option<u64>,
    /// Milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
}

/// The bounds of one invocation, already resolved from every layer of configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Measured from the start of execution; none: no soft limit.
    pub soft_time: Option<Duration>,
    /// Measured from the start of execution; none: no hard limit.
    pub hard_time: Option<Duration>,
    /// Sum over all linear memories, in bytes.
    pub memory_bytes_max: usize,
    /// Largest encoded result, in bytes.
    pub result_bytes_max: usize,
    /// Log lines, stdout and stderr together, in bytes; what is over is cut.
    pub log_bytes_max: usize,
    /// How long a guest blocked in a host call may go on after the hard limit or a kill, before it is dropped.
    pub kill_grace: Duration,
}

impl Default for Limits {
    /// The built-in defaults of the table in `docs/limits.md`.
    fn default() -> Self {
        Self {
            soft_time: None,
            hard_time: Some(Duration::from_secs(30 * 60)),
            memory_bytes_max: 256 << 20,
            result_bytes_max: 16 << 20,
            log_bytes_max: 256 << 10,
            kill_grace: Duration::from_millis(100),
        }
    }
}

/// One call of one task: everything that the sandbox needs, and nothing of brokers.
#[derive(Clone)]
pub struct Invocation {
    /// Registered task name.
    pub task: String,
    /// Task id.
    pub id: String,
    /// Arguments.
    pub input: Input,
    /// What the guest can ask.
    pub info: Arc<RequestInfo>,
    /// Message headers as one JSON object (`rwork:task/request.header`); parsed only when asked.
    pub headers: Bytes,
    /// Bounds.
    pub limits: Limits,
    /// What the guest's imports with effects reach.
    pub host: Arc<dyn Host>,
    /// How the worker asks this invocation to stop, from outside and at any time.
    pub stop: Stop,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation").field("task", &self.task).field("id", &self.id).finish_non_exhaustive()
    }
}
