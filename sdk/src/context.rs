//! What a task can ask of the worker that runs it.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::Host;
use crate::json::{self, JsonError};
use crate::{Retry, Signature};

/// The task's view of its worker: the request, the limits, progress and other tasks.
///
/// A task gets it by taking `&Context` as its first parameter. Nothing in it costs anything until it is asked for. In a
/// native test it comes from [`crate::testing::TestContext`].
#[derive(Clone, Debug)]
pub struct Context {
    task: String,
    id: String,
    pub(crate) host: Host,
}

/// What is known of the message that is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// First task of the workflow; the task's own id when it started one.
    pub root_id: String,
    /// The task that sent this one.
    pub parent_id: Option<String>,
    /// The group it belongs to.
    pub group_id: Option<String>,
    /// Its place in the group, from 0.
    pub group_index: Option<u32>,
    /// Attempts that ended in a retry before this one; 0 at first.
    pub retries: u32,
    /// Deliveries of this message, this one included; 1 at first.
    pub delivery_count: u32,
    /// Whether the broker says that it was delivered before.
    pub redelivered: bool,
    /// The queue it came from.
    pub queue: String,
    /// The message's priority.
    pub priority: Option<u8>,
    /// Name of the worker's node, `worker1@host`.
    pub hostname: String,
    /// The producer, as it named itself.
    pub origin: Option<String>,
    /// The message's correlation id.
    pub correlation_id: Option<String>,
    /// Where an rpc result goes.
    pub reply_to: Option<String>,
    /// When it was due.
    pub eta: Option<SystemTime>,
    /// When it is no longer wanted.
    pub expires: Option<SystemTime>,
}

/// How long there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLeft {
    /// To the soft time limit, zero when passed; none: there is none.
    pub soft: Option<Duration>,
    /// To the hard time limit; none: there is none.
    pub hard: Option<Duration>,
}

/// Why the host wishes the task to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The soft time limit has passed.
    SoftTimeLimit,
    /// The task was revoked.
    Revoked,
    /// The worker is shutting down.
    Shutdown,
    /// Something else, in the host's words.
    Other(String),
}

/// The host wishes the task to stop. Returned with `?`, it becomes `SoftTimeLimitExceeded` or `TaskRevokedError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped(pub StopReason);

/// The id of something that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitted {
    /// The task whose result is the signature's: the last of a chain, the body of a chord. For a group, the group's id.
    pub id: String,
    /// Celery's result tuple, `[[id, parent], children]`, as JSON.
    pub result_tuple: String,
}

/// Why progress could not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressError {
    /// Not granted to this plugin.
    Denied(String),
    /// The result backend cannot be reached.
    Unavailable(String),
    /// The metadata has no JSON.
    Encode(String),
    /// The host wishes the task to stop.
    Stopped(StopReason),
    /// Something else, in the host's words.
    Other(String),
}

/// Why a signature could not be sent, or a result not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Not granted to this plugin; says which grant is missing.
    Denied(String),
    /// Not a signature that the worker can send, or one whose arguments have no JSON.
    Invalid(String),
    /// The message would be too large.
    TooLarge(String),
    /// The broker or the result backend cannot be reached.
    Unavailable(String),
    /// No result within the time asked for.
    TimedOut,
    /// The awaited task failed.
    Failed(RemoteFailure),
    /// The result is not of the type asked for.
    Decode(String),
    /// The host wishes the task to stop.
    Stopped(StopReason),
    /// Something else, in the host's words.
    Other(String),
}

/// The failure of another task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteFailure {
    /// Class name of its exception.
    pub exc_type: String,
    /// Module of the class.
    pub exc_module: Option<String>,
    /// The exception's arguments: one JSON array.
    pub exc_args: String,
    /// One line for people.
    pub message: String,
    /// Its traceback.
    pub traceback: Option<String>,
}

impl Context {
    pub(crate) fn new(task: String, id: String, host: Host) -> Self {
        Self { task, id, host }
    }

    /// The name the task is registered under.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The task id: the same for every attempt and every delivery.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is known of the message.
    pub fn request(&self) -> Request {
        self.host.request()
    }

    /// A message header, decoded from JSON; custom headers included. None when it is absent or of another type.
    pub fn header<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.host.header(name).and_then(|text| json::from_str(&text).ok())
    }

    /// The names of all message headers.
    pub fn header_names(&self) -> Vec<String> {
        self.host.header_names()
    }

    /// Whether the host wishes the task to stop, and why; once there, it stays. Cheap enough for inner loops.
    pub fn stop_requested(&self) -> Option<StopReason> {
        self.host.stop_requested()
    }

    /// Ends the task when the host wishes so: `ctx.checkpoint()?`. A loop that computes for long needs one, since nothing
    /// else can tell it that its soft time limit has passed.
    ///
    /// # Errors
    ///
    /// [`Stopped`], which becomes `SoftTimeLimitExceeded` or `TaskRevokedError`.
    pub fn checkpoint(&self) -> Result<(), Stopped> {
        match self.stop_requested() {
            None => Ok(()),
            Some(reason) => Err(Stopped(reason)),
        }
    }

    /// How long there is until the soft and the hard time limit.
    pub fn remaining(&self) -> TimeLeft {
        self.host.remaining()
    }

    /// Waits so long, to the millisecond, without holding a CPU slot of the worker.
    ///
    /// # Errors
    ///
    /// [`Stopped`] as soon as the host wishes the task to stop.
    pub fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        self.host.sleep(duration).map_err(Stopped)
    }

    /// Stores a state of the task's own (`PROGRESS`, say) with its metadata, as Celery's `update_state`.
    ///
    /// # Errors
    ///
    /// When the metadata has no JSON, progress is not granted, or the backend cannot be reached.
    pub fn progress(&self, state: &str, meta: impl Serialize) -> Result<(), ProgressError> {
        let meta = json::to_vec(&meta).map_err(|error| ProgressError::Encode(error.to_string()))?;
        self.host.progress(state, meta)
    }

    /// Sends a signature of any kind, and waits until the broker has confirmed it. Needs the grant `submit`.
    ///
    /// # Errors
    ///
    /// When an argument has no JSON, the grant is missing, or the broker does not take it.
    pub fn send(&self, signature: Signature) -> Result<Submitted, SendError> {
        let signature = encode(&signature)?;
        self.host.send(signature)
    }

    /// Sends all of the signatures or none, in one round trip where the broker can.
    ///
    /// # Errors
    ///
    /// As [`Context::send`].
    pub fn send_many(
        &self,
        signatures: impl IntoIterator<Item = Signature>,
    ) -> Result<Vec<Submitted>, SendError> {
        let encoded: Result<Vec<_>, _> = signatures.into_iter().map(|signature| encode(&signature)).collect();
        self.host.send_many(encoded?)
    }

    /// Waits for the result of a task, without holding a CPU slot of the worker. A chain or a chord does the same without
    /// keeping this task in memory meanwhile.
    ///
    /// # Errors
    ///
    /// When the task failed, its result is of another type, or there is none after `timeout` (to the millisecond).
    pub fn await_result<T: DeserializeOwned>(&self, id: &str, timeout: Duration) -> Result<T, SendError> {
        let data = self.host.await_result(id, timeout)?;
        let text = std::str::from_utf8(&data).map_err(|error| SendError::Decode(error.to_string()))?;
        json::from_str(text).map_err(|error| SendError::Decode(error.to_string()))
    }

    /// A wish to run again, to be returned as an error: `Err(ctx.retry().delay(d).into())`.
    pub fn retry(&self) -> Retry {
        Retry::default()
    }
}

fn encode(signature: &Signature) -> Result<Vec<u8>, SendError> {
    let encoded = signature.to_json().map_err(|error: JsonError| SendError::Invalid(error.to_string()))?;
    Ok(encoded.into_bytes())
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SoftTimeLimit => "the soft time limit has passed",
            Self::Revoked => "the task was revoked",
            Self::Shutdown => "the worker is shutting down",
            Self::Other(reason) => reason,
        })
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ProgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "storing progress is not granted: {why}"),
            Self::Unavailable(why) => write!(f, "the result backend cannot be reached: {why}"),
            Self::Encode(why) => write!(f, "the progress has no JSON: {why}"),
            Self::Stopped(reason) => write!(f, "{reason}"),
            Self::Other(why) => write!(f, "storing progress failed: {why}"),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "sending is not granted: {why}"),
            Self::Invalid(why) => write!(f, "not a signature that can be sent: {why}"),
            Self::TooLarge(why) => write!(f, "the message is too large: {why}"),
            Self::Unavailable(why) => write!(f, "the broker or the result backend cannot be reached: {why}"),
            Self::TimedOut => f.write_str("no result within the time asked for"),
            Self::Failed(failure) => {
                write!(f, "the awaited task failed: {}: {}", failure.exc_type, failure.message)
            }
            Self::Decode(why) => write!(f, "the result is of another type: {why}"),
            Self::Stopped(reason) => write!(f, "{reason}"),
            Self::Other(why) => write!(f, "sending failed: {why}"),
        }
    }
}

impl std::error::Error for Stopped {}
impl std::error::Error for ProgressError {}
impl std::error::Error for SendError {}
