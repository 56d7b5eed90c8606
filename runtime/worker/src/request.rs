//! A message that this worker accepted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rwork_backend::Store;
use rwork_broker::Receipt;
use rwork_protocol::{
    Exception, Extended, QueueName, Record, State, TaskId, TaskMessage, TaskName, Timestamp, guest_headers,
    json,
};
use rwork_sandbox::{Host, Input, Invocation, JSON, RequestInfo, Stop};
use tokio::sync::mpsc;

use crate::budget::Grant;
use crate::commit::{Effects, Fence, Fenced, Held, Subject, TaskCommit};
use crate::executor::{Executor, TaskVersion};
use crate::failure::Failing;
use crate::host::Guest;
use crate::next;
use crate::parts::Parts;
use crate::session::Session;

/// What a record needs beside its result and what it tells of the call, at most: ids, state, time, digest.
const RECORD_OVERHEAD: usize = 4096;

/// A message, the task that it calls, and everything that its steps need. Shared between the pipe and the guest's imports,
/// for which it is the [`Host`].
pub(crate) struct Request<E: Executor> {
    pub(crate) parts: Arc<Parts<E>>,
    pub(crate) message: TaskMessage,
    /// Keeps account of what is in `message`.
    _body: Grant,
    /// The version that it runs on to its end.
    pub(crate) task: E::Task,
    /// As on the wire: what the guest can ask for by name.
    pub(crate) wire_headers: Bytes,
    pub(crate) queue: QueueName,
    pub(crate) delivery_count: u32,
    pub(crate) redelivered: bool,
    /// The delivery without which the run is pointless; `None`: acked before it begins, so it runs to its end.
    pub(crate) fence: Option<Fence>,
    /// The way to the committer of its consumer; weak, so that a guest that will not end can't keep it from ending.
    pub(crate) commits: mpsc::WeakSender<TaskCommit>,
    /// Memory that its result was granted. Written by the sandbox once, taken by its commit.
    pub(crate) granted: Mutex<Option<Grant>>,
    /// Result tuples of what the guest has sent so far. Pushed by its imports, read once at its end.
    pub(crate) sent: Mutex<Vec<Bytes>>,
}

/// A request and the delivery that it came by.
pub(crate) struct Accepted<E: Executor> {
    pub(crate) held: Held,
    pub(crate) request: Arc<Request<E>>,
}

impl<E: Executor> Accepted<E> {
    /// True if it came by this consumer, and by one of these receipts if any are named.
    pub(crate) fn is_one_of(&self, session: &Arc<Session>, receipts: Option<&[Receipt]>) -> bool {
        let Held { session: own, delivery } = &self.held;
        Arc::ptr_eq(own, session) && receipts.is_none_or(|receipts| receipts.contains(&delivery.receipt))
    }
}

impl<E: Executor> Request<E> {
    pub(crate) fn new(
        parts: Arc<Parts<E>>,
        message: TaskMessage,
        body: Grant,
        task: E::Task,
        held: &Held,
        commits: &mpsc::WeakSender<TaskCommit>,
    ) -> Self {
        let delivery = &held.delivery;
        Self {
            fence: task.options().acks_late.then(|| held.fence()),
            commits: commits.clone(),
            granted: Mutex::default(),
            parts,
            message,
            _body: body,
            task,
            wire_headers: guest_headers(&delivery.message.headers),
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
    pub(crate) fn record(&self, status: State, result: Bytes, children: Bytes) -> Option<Record> {
        if !self.keeps(&status) {
            return None;
        }
        let (headers, shared) = (&self.message.headers, &self.parts.shared);
        let date_done = status.is_ready().then(|| shared.clock.now());
        let extended = || Box::new(Extended::of(&self.message, &shared.config.node, self.queue.as_str()));
        Some(Record {
            task_id: headers.id.clone(),
            status,
            result,
            traceback: None,
            children: Some(children),
            date_done,
            group_id: headers.group.clone(),
            parent_id: headers.parent_id.as_ref().map(|id| id.as_str().to_owned()),
            component: Some(self.task.digest().to_owned()),
            extended: shared.config.result_extended.then(extended),
            other: Vec::new(),
        })
    }

    /// Memory for its result.
    pub(crate) fn grant(&self, grant: Grant) {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(grant);
    }

    /// Result tuples of what the guest has sent so far: one JSON array.
    pub(crate) fn children(&self) -> Bytes {
        json::array_of(&self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a record of this task needs beside its result, at most, in bytes.
    pub(crate) fn record_overhead(&self) -> usize {
        let call = if self.parts.shared.config.result_extended {
            let headers = &self.message.headers;
            let stamps = [&headers.stamped_headers, &headers.stamps];
            let stamps = stamps.into_iter().flatten().map(Bytes::len).sum::<usize>();
            self.message.args.len() + self.message.kwargs.len() + stamps
        } else {
            0
        };
        RECORD_OVERHEAD + call
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

    /// What a step of it causes, on its way to the committer.
    pub(crate) fn commit(self: &Arc<Self>, effects: Effects) -> TaskCommit {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let followed: usize = effects.follow_ups.iter().map(|publish| publish.message.size()).sum();
        let followed = (followed > 0).then(|| self.parts.shared.budget.results.take(followed));
        let grants = granted.into_iter().chain(followed).collect();
        TaskCommit { _grants: grants, ..TaskCommit::of(Arc::clone(self) as Arc<dyn Subject>, effects) }
    }

    /// A step that ends nothing: a state between, what the guest submits. Pointless once the delivery is somebody else's.
    pub(crate) fn step(self: &Arc<Self>, effects: Effects) -> TaskCommit {
        let fenced = self.fence.clone().map_or(Fenced::No, Fenced::Holds);
        TaskCommit { fenced, ..TaskCommit::of(Arc::clone(self) as Arc<dyn Subject>, effects) }
    }

    /// Effects of its failure.
    pub(crate) fn fail_with(&self, state: State, exception: &Exception, traceback: Option<&str>) -> Effects {
        let failing = Failing { message: &self.message, state: state.clone(), exception, traceback };
        failing.effects(&self.parts, |children| {
            self.record(state, exception.encode(), next::children(self, children))
        })
    }

    /// The STARTED state, in Celery's words.
    pub(crate) fn started(&self) -> Option<Record> {
        let pid = Bytes::from(std::process::id().to_string());
        let hostname = json::string(&self.parts.shared.config.node);
        let result = json::object_of(&[("pid", pid), ("hostname", hostname)]);
        self.record(State::Started, result, self.children())
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
            host: Arc::new(Guest(Arc::clone(self))) as Arc<dyn Host>,
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

impl<E: Executor> Subject for Request<E> {
    fn label(&self) -> (&TaskId, &TaskName) {
        (self.id(), self.name())
    }

    fn fail(&self, exception: &Exception) -> Effects {
        self.fail_with(State::Failure, exception, None)
    }
}
