//! A message that this worker accepted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rwork_backend::Store;
use rwork_broker::Delivery;
use rwork_protocol::{Exception, QueueName, Record, State, TaskId, TaskMessage, TaskName, Timestamp};
use rwork_sandbox::{Host, Input, Invocation, JSON, RequestInfo, Stop};

use crate::commit::Held;
use crate::executor::{Executor, TaskVersion};
use crate::parts::Parts;

/// A message, the task that it calls, and everything that its steps need. Shared between the pipe and the guest's imports,
/// for which it is the [`Host`].
pub(crate) struct Request<E: Executor> {
    pub(crate) parts: Arc<Parts<E>>,
    pub(crate) message: TaskMessage,
    /// The version that it runs on to its end.
    pub(crate) task: E::Task,
    /// As on the wire: what the guest can ask for by name.
    pub(crate) wire_headers: Bytes,
    pub(crate) queue: QueueName,
    pub(crate) delivery_count: u32,
    pub(crate) redelivered: bool,
    /// Result tuples of what the guest has sent so far. Pushed by its imports, read once at its end.
    pub(crate) sent: Mutex<Vec<Bytes>>,
}

/// A request and the delivery that it came by.
pub(crate) struct Accepted<E: Executor> {
    pub(crate) held: Held,
    pub(crate) request: Arc<Request<E>>,
}

impl<E: Executor> Request<E> {
    pub(crate) fn new(
        parts: Arc<Parts<E>>,
        message: TaskMessage,
        task: E::Task,
        delivery: &Delivery,
    ) -> Self {
        Self {
            parts,
            message,
            task,
            wire_headers: delivery.message.headers.clone(),
            queue: delivery.queue.clone(),
            delivery_count: delivery.delivery_count,
            redelivered: delivery.redelivered,
            sent: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.message.headers.id
    }

    pub(crate) fn name(&self) -> &TaskName {
        &self.message.headers.task
    }

    pub(crate) fn label(&self) -> (TaskId, TaskName) {
        (self.id().clone(), self.name().clone())
    }

    /// Strictly after: a task that expires now may still start (`celery-wire.md` §1.4).
    pub(crate) fn is_expired(&self) -> bool {
        self.message.headers.expires.is_some_and(|expires| self.parts.shared.clock.now() > expires)
    }

    /// How long until it is due; `None`: now.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        let eta = self.message.headers.eta?;
        Some(eta.since(self.parts.shared.clock.now())).filter(|wait| !wait.is_zero())
    }

    /// Whether no result is stored (`ignore_result`: the message's wish, else the task's).
    pub(crate) fn ignores_result(&self) -> bool {
        self.message.headers.ignore_result.unwrap_or(self.task.options().ignore_result)
    }

    /// Whether a record of this state is kept.
    fn keeps(&self, state: &State) -> bool {
        !self.ignores_result()
            || (matches!(state, State::Failure | State::Revoked)
                && self.task.options().store_errors_even_if_ignored)
    }

    /// A record of this task, or nothing where none is kept.
    pub(crate) fn record(&self, status: State, result: Bytes, children: Option<Bytes>) -> Option<Record> {
        if !self.keeps(&status) {
            return None;
        }
        let headers = &self.message.headers;
        let date_done = status.is_ready().then(|| self.parts.shared.clock.now());
        Some(Record {
            task_id: headers.id.clone(),
            status,
            result,
            traceback: None,
            children,
            date_done,
            group_id: headers.group.clone(),
            parent_id: headers.parent_id.as_ref().map(|id| id.as_str().to_owned()),
            component: Some(self.task.digest().to_owned()),
        })
    }

    /// A record on its way to the backend, with what an rpc client needs.
    pub(crate) fn store(&self, record: Record) -> Store {
        let properties = &self.message.properties;
        Store {
            reply_to: properties.reply_to.clone(),
            correlation_id: properties.correlation_id.clone(),
            ..self.parts.shared.store(record)
        }
    }

    /// `{"pid": …, "hostname": …}` is all that Celery says; a worker's process is nobody's business here, its node is.
    pub(crate) fn started(&self) -> Option<Store> {
        let hostname = rwork_protocol::json::string(&self.parts.shared.config.node);
        let result = rwork_protocol::json::object_of(&[("hostname", hostname)]);
        self.record(State::Started, result, None).map(|record| self.store(record))
    }

    /// What the sandbox is given. Arguments are slices of the message's body.
    pub(crate) fn invocation(self: &Arc<Self>, stop: Stop) -> Invocation {
        let headers = &self.message.headers;
        Invocation {
            task: headers.task.as_str().to_owned(),
            id: headers.id.as_str().to_owned(),
            input: Input::Call {
                content_type: JSON.to_owned(),
                args: self.message.args.clone(),
                kwargs: self.message.kwargs.clone(),
            },
            info: Arc::new(self.info()),
            headers: self.wire_headers.clone(),
            limits: self.task.options().limits_for(headers.hard_time_limit, headers.soft_time_limit),
            host: Arc::clone(self) as Arc<dyn Host>,
            stop,
        }
    }

    fn info(&self) -> RequestInfo {
        let (headers, properties) = (&self.message.headers, &self.message.properties);
        let unix_ms = |time: Timestamp| u64::try_from(time.as_millis()).unwrap_or(0);
        RequestInfo {
            root_id: headers.root().as_str().to_owned(),
            parent_id: headers.parent_id.as_ref().map(|id| id.as_str().to_owned()),
            group_id: headers.group.clone(),
            group_index: headers.group_index,
            retries: headers.retries,
            delivery_count: self.delivery_count,
            redelivered: self.redelivered,
            queue: self.queue.as_str().to_owned(),
            priority: properties.priority,
            hostname: self.parts.shared.config.node.clone(),
            origin: headers.origin.clone(),
            correlation_id: properties.correlation_id.clone(),
            reply_to: properties.reply_to.clone(),
            eta_unix_ms: headers.eta.map(unix_ms),
            expires_unix_ms: headers.expires.map(unix_ms),
        }
    }
}

/// A FAILURE record for a task that no version of ours stands behind.
pub(crate) fn failure(id: TaskId, exception: &Exception, now: Timestamp) -> Record {
    Record { date_done: Some(now), ..Record::new(id, State::Failure, exception.encode()) }
}
