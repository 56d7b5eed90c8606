//! Intake: a delivery becomes a request, or ends here because it can't or must not be run.
//!
//! Waits for nothing, sends nothing, takes no slot. In order: the redelivery cap, the message itself, its task, its content
//! type, its expiry, an earlier success, its due time. Revocation and deduplication by key will stand between the last two.

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::Delivery;
use rwork_protocol::{DecodeError, Exception, Record, TaskMessage};
use rwork_sandbox::JSON;
use tokio::sync::mpsc;

use crate::budget::Grant;
use crate::commit::{Effects, Held, Subject, TaskCommit};
use crate::ending::{AckPolicy, Ending};
use crate::executor::{Executor, TaskVersion};
use crate::next;
use crate::parts::Parts;
use crate::request::{Accepted, Request};
use crate::session::Session;
use crate::stranger::Stranger;

/// Origin of deliveries, and the way of their commits.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) session: Arc<Session>,
    /// Weak, so that a guest that will not end can't keep the committer from ending.
    pub(crate) commits: mpsc::WeakSender<TaskCommit>,
}

/// A delivery, looked into.
pub(crate) struct Arrived {
    pub(crate) delivery: Delivery,
    pub(crate) message: Result<TaskMessage, DecodeError>,
    /// Keeps account of what is in `message`.
    pub(crate) body: Grant,
    /// The record of an earlier success, looked for only where that is wanted and there may be one.
    pub(crate) success: Option<Record>,
}

/// What intake makes of it.
pub(crate) enum Intake<E: Executor> {
    /// To be run as soon as there is a slot.
    Run(Accepted<E>),
    /// The same, after so long.
    Wait(Accepted<E>, Duration),
    /// It ends here.
    End(Box<TaskCommit>),
}

impl<E: Executor> Intake<E> {
    fn end(commit: TaskCommit) -> Self {
        Self::End(Box::new(commit))
    }
}

/// Decides what becomes of a delivery.
pub(crate) fn intake<E: Executor>(parts: &Arc<Parts<E>>, source: &Source, arrived: Arrived) -> Intake<E> {
    let Arrived { delivery, message, body, success } = arrived;
    let held = Held { session: Arc::clone(&source.session), delivery };
    let (message, fault) = match message {
        Ok(message) => (message, None),
        Err(error) => match error.clone().into_request() {
            Some((message, text)) => (*message, Some(text)),
            None => return Intake::end(undecodable(parts, held, &error)),
        },
    };
    let Some(task) = parts.executor.lookup(message.headers.task.as_str()) else {
        return Intake::end(unknown(Stranger { parts: Arc::clone(parts), message, _body: body }, held));
    };
    let request = Request::new(Arc::clone(parts), message, body, task, &held, &source.commits);
    let request = Arc::new(request);
    let (queue, deliveries) = (&request.queue, held.delivery.delivery_count);
    let retries = request.message.headers.retries;
    tracing::debug!(task_id = %request.id(), task_name = %request.name(), %queue, deliveries, retries, "task received");
    if is_over_the_cap(parts, &held) {
        return Intake::end(too_often(parts, request, held));
    }
    if let Some(text) = fault {
        return Intake::end(next::fail_unrun(&request, held, &Exception::type_error(&text)));
    }
    if !request.task.options().accepts.contains(JSON) {
        return Intake::end(not_accepted(request, held));
    }
    if request.is_expired() {
        return Intake::end(next::expired(&request, held));
    }
    if let Some(record) = success {
        return Intake::end(next::repeat(&request, held, &record));
    }
    match request.due_in() {
        None => Intake::Run(Accepted { held, request }),
        Some(wait) if parts.shared.delays(wait) => Intake::end(park(&request, held)),
        Some(wait) => Intake::Wait(Accepted { held, request }, wait),
    }
}

/// Not due for a while: back to the broker, which holds it until then, so that it weighs on nobody's memory.
fn park<E: Executor>(request: &Arc<Request<E>>, held: Held) -> TaskCommit {
    let commit = request.commit(Effects::default());
    let until = request.message.headers.eta.unwrap_or_default();
    commit.ended(Some(held), Ending::Parked { until }, AckPolicy::default())
}

fn is_over_the_cap<E: Executor>(parts: &Parts<E>, held: &Held) -> bool {
    held.delivery.delivery_count > parts.shared.config.deliveries_max
}

fn too_often<E: Executor>(parts: &Parts<E>, subject: Arc<impl Subject + 'static>, held: Held) -> TaskCommit {
    let (count, max) = (held.delivery.delivery_count, parts.shared.config.deliveries_max);
    let detail = format!("expected an outcome within {max} starts, this would be number {count}");
    let exception = Exception::worker_lost(&format!("Worker exited prematurely: {detail}"));
    refuse(parts, subject, held, &exception, "too-many-deliveries", detail)
}

fn unknown<E: Executor>(stranger: Stranger<E>, held: Held) -> TaskCommit {
    let (parts, stranger) = (Arc::clone(&stranger.parts), Arc::new(stranger));
    if is_over_the_cap(&parts, &held) {
        return too_often(&parts, stranger, held);
    }
    let task = &stranger.message.headers.task;
    let detail = format!("no plugin provides task `{task}`");
    let exception = Exception::not_registered(task);
    refuse(&parts, stranger, held, &exception, "unknown-task", detail)
}

fn not_accepted<E: Executor>(request: Arc<Request<E>>, held: Held) -> TaskCommit {
    let accepts = request.task.options().accepts.0.join("`, `");
    let detail = format!("expected content type `{accepts}`, found `{JSON}`");
    let exception = Exception::new("kombu.exceptions", "ContentDisallowed", &detail);
    refuse(&Arc::clone(&request.parts), request, held, &exception, "content-refused", detail)
}

/// Nobody is told but the dead letters: not even the id can be trusted (`celery-wire.md` §6.2).
fn undecodable<E: Executor>(parts: &Parts<E>, held: Held, error: &DecodeError) -> TaskCommit {
    let (kind, detail) = match is_over_the_cap(parts, &held) {
        true => ("too-many-deliveries", format!("started too often, and can't be read: {error}")),
        false => (error.kind(), error.to_string()),
    };
    let (id, name) = (error.task_id.as_ref(), error.task.as_ref());
    let (id, name) = (id.map(|id| id.as_str()), name.map(|name| name.as_str()));
    tracing::error!(task_id = id, task_name = name, queue = %held.delivery.queue, "message can't be read");
    let ending = Ending::Refused(parts.shared.reason(kind, detail));
    TaskCommit::default().ended(Some(held), ending, AckPolicy::default())
}

/// A dead letter, and everything that a failure causes. It was not started, so that no policy of its task's applies.
fn refuse<E: Executor>(
    parts: &Parts<E>,
    subject: Arc<impl Subject + 'static>,
    held: Held,
    exception: &Exception,
    kind: &str,
    detail: String,
) -> TaskCommit {
    let effects = subject.fail(exception);
    let ending = Ending::Refused(parts.shared.reason(kind, detail));
    TaskCommit::of(subject, effects).ended(Some(held), ending, AckPolicy::default())
}
