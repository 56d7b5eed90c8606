//! What a guest's imports with effects reach, in the name of its request: log lines, custom states, sending, awaiting.
//!
//! Called on the I/O runtime. Nothing here decides how the task ends.

#![allow(
    clippy::result_large_err,
    reason = "the error is the sandbox's, and made at most once per call of a guest"
)]

use std::ops::Deref;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt as _};
use rwork_broker::Publish;
use rwork_canvas::{Applied, Parent};
use rwork_protocol::{Exception, Record, Signature, State, TaskId, TaskMessage, json};
use rwork_sandbox::{Failure, Host, HostError, JSON, Level, LogSource, Payload, Submitted};
use tokio::sync::oneshot;

use crate::commit::{Became, Effects, TaskCommit};
use crate::executor::{Executor, TaskVersion};
use crate::outage::chain;
use crate::request::Request;
use crate::signatures;

/// The request of a guest that runs, as its imports see it.
pub(crate) struct Guest<E: Executor>(pub(crate) Arc<Request<E>>);

impl<E: Executor> Deref for Guest<E> {
    type Target = Arc<Request<E>>;

    fn deref(&self) -> &Arc<Request<E>> {
        &self.0
    }
}

#[async_trait]
impl<E: Executor> Host for Guest<E> {
    fn log_enabled(&self, level: Level) -> bool {
        match level {
            Level::Trace => tracing::enabled!(target: "rwork::task", tracing::Level::TRACE),
            Level::Debug => tracing::enabled!(target: "rwork::task", tracing::Level::DEBUG),
            Level::Info => tracing::enabled!(target: "rwork::task", tracing::Level::INFO),
            Level::Warn => tracing::enabled!(target: "rwork::task", tracing::Level::WARN),
            Level::Error => tracing::enabled!(target: "rwork::task", tracing::Level::ERROR),
        }
    }

    fn log(&self, source: LogSource, level: Level, message: &str, fields: &[(String, String)]) {
        let (id, name, plugin) = (self.id(), self.name(), self.task.plugin());
        let source = match source {
            LogSource::Log => None,
            LogSource::Stdout => Some("stdout"),
            LogSource::Stderr => Some("stderr"),
        };
        let fields = (!fields.is_empty()).then(|| fields_line(fields));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(target: "rwork::task", task_id = %id, task_name = %name, plugin, source, fields, "{message}")
            };
        }
        match level {
            Level::Trace => line!(trace),
            Level::Debug => line!(debug),
            Level::Info => line!(info),
            Level::Warn => line!(warn),
            Level::Error => line!(error),
        }
    }

    fn hold_result(&self, bytes: usize) -> Option<BoxFuture<'static, ()>> {
        let request = Arc::clone(&self.0);
        let pool = Arc::clone(&request.parts.shared.budget.results);
        if let Some(grant) = pool.try_take(bytes) {
            request.grant(grant);
            return None;
        }
        Some(async move { request.grant(pool.take_when_free(bytes).await) }.boxed())
    }

    async fn progress(&self, state: String, meta: Payload) -> Result<(), HostError> {
        let state = custom_state(&state)?;
        let result = json_value(meta)?;
        let Some(record) = self.record(state, result, self.children()) else { return Ok(()) };
        // Through the committer, so that it can't overtake STARTED or be overtaken by the outcome.
        let effects = Effects { records: vec![self.store(record)], ..Effects::default() };
        match self.step_confirmed(effects).await? {
            Became::Refused(_) => Err(HostError::TooLarge("the result backend refuses the state".to_owned())),
            Became::Done | Became::Lost => Ok(()),
        }
    }

    async fn submit(&self, signatures: Vec<Payload>) -> Result<Vec<Submitted>, HostError> {
        let mut submitted = Vec::with_capacity(signatures.len());
        let mut publish = Vec::new();
        for signature in signatures {
            let applied = self.apply(signature)?;
            let (id, result_tuple) = applied.id.zip(applied.child).ok_or_else(|| {
                HostError::Invalid("expected a signature that sends something, found an empty one".to_owned())
            })?;
            publish.extend(self.parts.publish_all(applied.publish));
            submitted.push((id, result_tuple));
        }
        self.check_sizes(&publish)?;
        let effects = Effects { follow_ups: publish, ..Effects::default() };
        match self.step_confirmed(effects).await? {
            Became::Done => {}
            Became::Lost => return Err(going_down()),
            Became::Refused(why) => return Err(HostError::Unavailable(why)),
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.extend(submitted.iter().map(|(_, tuple)| tuple.clone()));
        Ok(submitted.into_iter().map(told).collect())
    }

    async fn await_result(&self, id: String, timeout: Duration) -> Result<Payload, HostError> {
        let id = TaskId::new(id).map_err(|error| HostError::Invalid(error.to_string()))?;
        let wait = async {
            let mut records =
                self.parts.shared.backend.watch(&id).await.map_err(|error| unavailable(&error))?;
            while let Some(record) = records.next().await {
                let record = record.map_err(|error| unavailable(&error))?;
                if record.status.is_ready() {
                    return result_of(record);
                }
            }
            Err(HostError::Unavailable("the result backend closed".to_owned()))
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or(Err(HostError::TimedOut))
    }
}

impl<E: Executor> Request<E> {
    /// Commits a step of the guest's and waits until it is done. Waits for room for its bytes first.
    async fn step_confirmed(self: &Arc<Self>, effects: Effects) -> Result<Became, HostError> {
        let grant = self.parts.shared.budget.results.take_when_free(effects.size()).await;
        let commits = self.commits.upgrade().ok_or_else(going_down)?;
        let (reply, answer) = oneshot::channel();
        let step = TaskCommit { reply: Some(reply), _grants: vec![grant], ..self.step(effects) };
        commits.send(step).await.map_err(|_| going_down())?;
        drop(commits);
        answer.await.map_err(|_| going_down())
    }

    fn check_sizes(&self, publish: &[Publish]) -> Result<(), HostError> {
        let limit = self.parts.shared.broker.capabilities().message_bytes_max;
        match publish.iter().map(|publish| publish.message.size()).find(|size| *size > limit) {
            None => Ok(()),
            Some(size) => Err(HostError::TooLarge(rwork_broker::Error::TooLarge { limit, size }.to_string())),
        }
    }

    /// Takes one signature apart and checks every task that it names against the grants.
    fn apply(&self, signature: Payload) -> Result<Applied, HostError> {
        let invalid = |error: &dyn std::error::Error| HostError::Invalid(error.to_string());
        let signature = Signature::parse(&json_value(signature)?).map_err(|error| invalid(&error))?;
        let parent = Parent::from(&self.message);
        let applied = self
            .parts
            .with_context(|context| rwork_canvas::apply(&signature, &[], Some(parent), context))
            .map_err(|error| HostError::Invalid(chain(&error)))?;
        for outgoing in &applied.publish {
            self.check_granted(&outgoing.message)?;
        }
        Ok(applied)
    }

    fn check_granted(&self, message: &TaskMessage) -> Result<(), HostError> {
        let tasks = signatures::tasks_of(message).map_err(HostError::Invalid)?;
        match tasks.iter().find(|task| !self.task.may_submit(task)) {
            None => Ok(()),
            Some(task) => {
                let plugin = self.task.plugin();
                Err(HostError::Denied(format!("`{task}` is not in `submit` of `[plugins.{plugin}.grants]`")))
            }
        }
    }
}

fn told((id, result_tuple): (TaskId, Bytes)) -> Submitted {
    Submitted {
        id: id.as_str().to_owned(),
        result_tuple: String::from_utf8_lossy(&result_tuple).into_owned(),
    }
}

/// Celery's own words keep their meaning: what is stored under them is a worker's to say (`celery-wire.md` C22).
fn custom_state(state: &str) -> Result<State, HostError> {
    match State::parse(state) {
        State::Custom(name) if !name.is_empty() && name.len() <= STATE_BYTES_MAX => Ok(State::Custom(name)),
        _ => Err(HostError::Invalid(format!(
            "expected a state of the task's own such as `PROGRESS`, of 1 to {STATE_BYTES_MAX} bytes, got `{state}`"
        ))),
    }
}

/// Longest custom state: Celery's SQL stores have 50 characters for it.
const STATE_BYTES_MAX: usize = 50;

fn json_value(payload: Payload) -> Result<Bytes, HostError> {
    if payload.content_type != JSON {
        return Err(HostError::Invalid(format!(
            "expected content type `{JSON}`, got `{}`",
            payload.content_type
        )));
    }
    json::check(&payload.data)
        .map_err(|error| HostError::Invalid(format!("expected one JSON value: {error}")))?;
    Ok(payload.data)
}

fn result_of(record: Record) -> Result<Payload, HostError> {
    if record.status == State::Success {
        return Ok(Payload::json(record.result));
    }
    let exception =
        record.exception().unwrap_or_else(|| Exception::worker_lost("the record names no exception"));
    Err(HostError::Failed(Failure {
        message: exception.to_string(),
        exc_type: exception.exc_type,
        exc_module: Some(exception.exc_module),
        exc_args: Payload::json(exception.exc_message),
        traceback: record.traceback,
        retryable: true,
    }))
}

fn fields_line(fields: &[(String, String)]) -> String {
    let pairs: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

fn unavailable(error: &rwork_broker::Error) -> HostError {
    match error {
        rwork_broker::Error::TooLarge { .. } => HostError::TooLarge(error.to_string()),
        _ => HostError::Unavailable(chain(error)),
    }
}

fn going_down() -> HostError {
    HostError::Unavailable("the worker is going down".to_owned())
}
