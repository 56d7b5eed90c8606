//! Decode and intake: a delivery becomes a request, or ends here because it can't or must not be run.
//!
//! Never waits, takes no slot. In order: the redelivery cap, the message itself, its task, its content type, its expiry,
//! an earlier success, its due time. Revocation and deduplication by key will stand between the last two.

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Delivery, Publish, Route};
use rwork_protocol::{DecodeError, Exception, Record, RevokeReason, State, TaskMessage, decode};
use rwork_sandbox::JSON;

use crate::commit::{Commit, Held};
use crate::ending::{AckPolicy, Ending};
use crate::executor::{Executor, TaskVersion};
use crate::next;
use crate::outage::Outage;
use crate::parts::Parts;
use crate::request::{Accepted, Request, failure};
use crate::session::{Lost, Session};
use crate::shared::Shared;

/// A delivery, looked into.
pub(crate) struct Arrived {
    pub(crate) delivery: Delivery,
    pub(crate) message: Result<TaskMessage, DecodeError>,
    /// The record of an earlier success, looked for only where there may be one.
    pub(crate) success: Option<Record>,
}

/// What intake makes of it.
pub(crate) enum Intake<E: Executor> {
    /// To be run as soon as there is a slot.
    Run(Accepted<E>),
    /// The same, after so long.
    Wait(Accepted<E>, Duration),
    /// It ends here.
    End(Box<Commit>),
}

impl<E: Executor> Intake<E> {
    fn end(commit: Commit) -> Self {
        Self::End(Box::new(commit))
    }
}

/// Takes up to `max` deliveries and looks into them.
///
/// # Cancel safety
/// What a cancelled call had taken stays held by the consumer until that is closed.
pub(crate) async fn receive(
    shared: Arc<Shared>,
    session: Arc<Session>,
    max: usize,
) -> Result<Vec<Arrived>, Lost> {
    let deliveries = session.receive(max, Outage::new("receive messages", shared.backoff())).await?;
    let limits = &shared.config.decode_limits;
    let look =
        |delivery: Delivery| Arrived { message: decode(&delivery.message, limits), success: None, delivery };
    let mut arrived: Vec<_> = deliveries.into_iter().map(look).collect();
    if shared.config.deduplicate_successful {
        recall(&shared, &session, &mut arrived).await?;
    }
    Ok(arrived)
}

/// Asks the backend, in one round trip, whether redelivered messages have succeeded before: then only the ack was lost.
async fn recall(shared: &Shared, session: &Session, arrived: &mut [Arrived]) -> Result<(), Lost> {
    let mut again: Vec<_> = arrived.iter_mut().filter(|arrived| arrived.delivery.redelivered).collect();
    again.retain(|arrived| arrived.message.is_ok());
    let ids: Vec<_> = again
        .iter()
        .filter_map(|arrived| arrived.message.as_ref().ok())
        .map(|message| message.headers.id.clone())
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut outage = Outage::new("read results", shared.backoff());
    loop {
        match shared.backend.get(&ids).await {
            Ok(records) => {
                outage.over();
                for (arrived, record) in again.iter_mut().zip(records) {
                    arrived.success = record.filter(|record| record.status == State::Success);
                }
                return Ok(());
            }
            Err(_) if session.is_lost() => return Err(Lost),
            Err(error) => tokio::time::sleep(outage.failed(&error)).await,
        }
    }
}

/// Decides what becomes of a delivery.
pub(crate) fn intake<E: Executor>(
    parts: &Arc<Parts<E>>,
    session: &Arc<Session>,
    arrived: Arrived,
) -> Intake<E> {
    let Arrived { delivery, message, success } = arrived;
    let held = Held { session: Arc::clone(session), delivery };
    let shared = &parts.shared;
    if held.delivery.delivery_count > shared.config.deliveries_max {
        return Intake::end(too_often(shared, held, message.ok()));
    }
    let (message, fault) = match message {
        Ok(message) => (message, None),
        Err(error) => match error.clone().into_request() {
            Some((message, text)) => (*message, Some(text)),
            None => return Intake::end(undecodable(shared, held, &error)),
        },
    };
    let Some(task) = parts.executor.lookup(message.headers.task.as_str()) else {
        return Intake::end(unknown(shared, held, &message));
    };
    let request = Arc::new(Request::new(Arc::clone(parts), message, task, &held.delivery));
    let (queue, deliveries) = (&request.queue, held.delivery.delivery_count);
    tracing::debug!(task_id = %request.id(), task_name = %request.name(), %queue, deliveries, "task received");
    if let Some(text) = fault {
        return Intake::end(next::fail_unrun(&request, held, &Exception::type_error(&text)));
    }
    if !request.task.options().accepts.contains(JSON) {
        return Intake::end(not_accepted(&request, held));
    }
    if request.is_expired() {
        return Intake::end(expired(&request, held));
    }
    if let Some(record) = success {
        return Intake::end(next::repeat(&request, held, &record));
    }
    match request.due_in() {
        None => Intake::Run(Accepted { held, request }),
        Some(wait) if shared.delays(wait) => Intake::end(park(&request, held)),
        Some(wait) => Intake::Wait(Accepted { held, request }, wait),
    }
}

/// Past its `expires`: REVOKED, as Celery has it (`celery-wire.md` §6.6).
pub(crate) fn expired<E: Executor>(request: &Request<E>, held: Held) -> Commit {
    tracing::info!(task_id = %request.id(), task_name = %request.name(), "task expired before it could start");
    let exception = Exception::revoked(RevokeReason::Expired);
    let record = request.record(State::Revoked, exception.encode(), None);
    let records = record.map(|record| request.store(record)).into_iter().collect();
    end(held, Commit { task: Some(request.label()), records, ..Commit::default() }, Ending::Expired)
}

/// Not due for a while: back to the broker, which holds it until then, so that it weighs on nobody's memory or lease.
fn park<E: Executor>(request: &Request<E>, held: Held) -> Commit {
    let publish = Publish {
        route: Route::queue(&held.delivery.queue),
        message: held.delivery.message.clone(),
        not_before: request.message.headers.eta,
    };
    end(
        held,
        Commit { task: Some(request.label()), follow_ups: vec![publish], ..Commit::default() },
        Ending::Parked,
    )
}

fn too_often(shared: &Shared, held: Held, message: Option<TaskMessage>) -> Commit {
    let (count, max) = (held.delivery.delivery_count, shared.config.deliveries_max);
    let detail = format!("expected an outcome within {max} deliveries, this is number {count}");
    let exception = Exception::worker_lost(&format!("Worker exited prematurely: {detail}"));
    refuse(shared, held, message.as_ref(), "too-many-deliveries", detail, Some(&exception))
}

/// Nobody is told but the dead letters: not even the id can be trusted (`celery-wire.md` §6.2).
fn undecodable(shared: &Shared, held: Held, error: &DecodeError) -> Commit {
    let commit = refuse(shared, held, None, error.kind(), error.to_string(), None);
    Commit { task: error.task_id.clone().zip(error.task.clone()), ..commit }
}

fn unknown(shared: &Shared, held: Held, message: &TaskMessage) -> Commit {
    let task = &message.headers.task;
    let detail = format!("expected a task that a plugin here has, found `{task}`");
    refuse(shared, held, Some(message), "unknown-task", detail, Some(&Exception::not_registered(task)))
}

fn not_accepted<E: Executor>(request: &Request<E>, held: Held) -> Commit {
    let accepts = request.task.options().accepts.0.join("`, `");
    let detail = format!("expected content type `{accepts}`, found `{JSON}`");
    let exception = Exception::new("kombu.exceptions", "ContentDisallowed", &detail);
    refuse(&request.parts.shared, held, Some(&request.message), "content-refused", detail, Some(&exception))
}

/// A dead letter, and a FAILURE for whoever waits, where it is known for whom.
fn refuse(
    shared: &Shared,
    held: Held,
    message: Option<&TaskMessage>,
    kind: &str,
    detail: String,
    exception: Option<&Exception>,
) -> Commit {
    let headers = message.map(|message| &message.headers);
    let (id, name) =
        (headers.map(|headers| headers.id.as_str()), headers.map(|headers| headers.task.as_str()));
    tracing::error!(task_id = id, task_name = name, queue = %held.delivery.queue, "message refused ({kind}): {detail}");
    let waited_for = message.filter(|message| message.headers.ignore_result != Some(true));
    let records = waited_for.zip(exception).map(|(message, exception)| {
        let mut store = shared.store(failure(message.headers.id.clone(), exception, shared.clock.now()));
        store.reply_to = message.properties.reply_to.clone();
        store.correlation_id = message.properties.correlation_id.clone();
        store
    });
    let task = headers.map(|headers| (headers.id.clone(), headers.task.clone()));
    let commit = Commit { task, records: records.into_iter().collect(), ..Commit::default() };
    end(held, commit, Ending::Refused(shared.reason(kind, detail)))
}

/// Whatever ends here was not started, so no policy of its task's applies.
fn end(held: Held, commit: Commit, ending: Ending) -> Commit {
    commit.ended(Some(held), ending, AckPolicy::default())
}
