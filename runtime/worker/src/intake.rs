//! Decode and intake: a delivery becomes a request, or ends here because it can't or must not be run.
//!
//! Never waits, takes no slot. In order: the redelivery cap, the message itself, its task, its content type, its expiry,
//! an earlier success, its due time. Revocation and deduplication by key will stand between the last two.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use rwork_backend::Store;
use rwork_broker::{Delivery, Disposition, Error};
use rwork_protocol::{
    DecodeError, Exception, Record, RevokeReason, State, TaskId, TaskMessage, TaskName, decode,
    may_be_compressed,
};
use rwork_sandbox::JSON;
use tokio::task::spawn_blocking;

use crate::bodies::Body;
use crate::commit::{Commit, Held};
use crate::ending::{AckPolicy, Ending};
use crate::executor::{Executor, TaskVersion};
use crate::next;
use crate::outage::{Outage, chain};
use crate::parts::Parts;
use crate::request::{Accepted, Request};
use crate::session::{Lost, Session};
use crate::shared::Shared;

/// A delivery, looked into.
pub(crate) struct Arrived {
    pub(crate) delivery: Delivery,
    pub(crate) message: Result<TaskMessage, DecodeError>,
    /// Keeps account of what is in `message`.
    pub(crate) body: Body,
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
    let deliveries = session.receive(max, Outage::of_broker("receive messages", shared.backoff())).await?;
    let (mut arrived, mut too_much) = (Vec::with_capacity(deliveries.len()), Vec::new());
    for delivery in deliveries {
        if shared.bodies.is_full() {
            too_much.push(delivery.settle(Disposition::Release));
        } else {
            arrived.push(look(&shared, delivery).await);
        }
    }
    if !too_much.is_empty() {
        let mut outage = Outage::of_broker("give messages back", shared.backoff());
        session.settle(too_much, &mut outage).await?;
    }
    if shared.config.deduplicate_successful {
        recall(&shared, &session, &mut arrived).await?;
    }
    Ok(arrived)
}

/// Decodes a message. What is compressed may take seconds, which nothing else has to wait for.
async fn look(shared: &Arc<Shared>, delivery: Delivery) -> Arrived {
    let message = if may_be_compressed(&delivery.message) {
        let (shared, message) = (Arc::clone(shared), delivery.message.clone());
        match spawn_blocking(move || decode(&message, &shared.config.decode_limits)).await {
            Ok(message) => message,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime ends, and we with it.
                Err(_) => pending().await,
            },
        }
    } else {
        decode(&delivery.message, &shared.config.decode_limits)
    };
    let bytes = message.as_ref().map_or(0, |message| message.args.len() + message.kwargs.len());
    Arrived { body: shared.bodies.hold(bytes), message, success: None, delivery }
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
    for (arrived, record) in again.iter_mut().zip(stored(shared, session, &ids).await?) {
        arrived.success = record.filter(|record| record.status == State::Success);
    }
    Ok(())
}

/// Reads records, for as long as that takes. One that can't be read, since another worker wrote it, is no success that we
/// know of, and must not hide the others.
async fn stored(shared: &Shared, session: &Session, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Lost> {
    let mut outage = Outage::of_backend("read results", shared.backoff());
    loop {
        match shared.backend.get(ids).await {
            Ok(records) => {
                outage.over();
                return Ok(records);
            }
            Err(_) if session.is_lost() => return Err(Lost),
            Err(error @ Error::Act { retryable: false, .. }) => {
                let [id] = ids else { break };
                tracing::warn!(task_id = %id, error = %chain(&error), "can't read the result of a redelivered task: it runs");
                return Ok(vec![None]);
            }
            Err(error) => tokio::time::sleep(outage.failed(&error)).await,
        }
    }
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        records.append(&mut Box::pin(stored(shared, session, std::slice::from_ref(id))).await?);
    }
    Ok(records)
}

/// Decides what becomes of a delivery.
pub(crate) fn intake<E: Executor>(
    parts: &Arc<Parts<E>>,
    session: &Arc<Session>,
    arrived: Arrived,
) -> Intake<E> {
    let Arrived { delivery, message, body, success } = arrived;
    let held = Held { session: Arc::clone(session), delivery };
    let shared = &parts.shared;
    if held.delivery.delivery_count > shared.config.deliveries_max {
        return Intake::end(too_often(parts, held, message.ok().map(|message| (message, body))));
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
    let request = Arc::new(Request::new(Arc::clone(parts), message, body, task, &held));
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
    let record = request.record(State::Revoked, exception.encode(), request.children());
    let records = record.map(|record| request.store(record)).into_iter().collect();
    end(held, Commit { task: Some(request.label()), records, ..Commit::default() }, Ending::Expired)
}

/// Not due for a while: back to the broker, which holds it until then, so that it weighs on nobody's memory or lease.
fn park<E: Executor>(request: &Request<E>, held: Held) -> Commit {
    let commit = Commit { task: Some(request.label()), ..Commit::default() };
    #[cfg(test)]
    if request.parts.shared.mistake == Some(crate::sim::Mistake::DelayByCopy) {
        return crate::sim::delay_by_copy(held, commit, request.message.headers.eta);
    }
    let until = request.message.headers.eta.unwrap_or_default();
    end(held, commit, Ending::Parked { until })
}

fn too_often<E: Executor>(parts: &Arc<Parts<E>>, held: Held, message: Option<(TaskMessage, Body)>) -> Commit {
    let shared = &parts.shared;
    let (count, max) = (held.delivery.delivery_count, shared.config.deliveries_max);
    let detail = format!("expected an outcome within {max} deliveries, this is number {count}");
    let exception = Exception::worker_lost(&format!("Worker exited prematurely: {detail}"));
    let kind = "too-many-deliveries";
    let Some((message, body)) = message else { return refuse(shared, held, None, kind, detail, None) };
    let name = Some(label(&message));
    let record = match parts.executor.lookup(message.headers.task.as_str()) {
        Some(task) => told(&Request::new(Arc::clone(parts), message, body, task, &held), &exception),
        None => told_of_stranger(shared, &message, &exception),
    };
    refuse(shared, held, name, kind, detail, record)
}

/// Nobody is told but the dead letters: not even the id can be trusted (`celery-wire.md` §6.2).
fn undecodable(shared: &Shared, held: Held, error: &DecodeError) -> Commit {
    let name = error.task_id.clone().zip(error.task.clone());
    refuse(shared, held, name, error.kind(), error.to_string(), None)
}

fn unknown(shared: &Shared, held: Held, message: &TaskMessage) -> Commit {
    let task = &message.headers.task;
    let detail = format!("expected a task that a plugin here has, found `{task}`");
    let record = told_of_stranger(shared, message, &Exception::not_registered(task));
    refuse(shared, held, Some(label(message)), "unknown-task", detail, record)
}

fn not_accepted<E: Executor>(request: &Request<E>, held: Held) -> Commit {
    let accepts = request.task.options().accepts.0.join("`, `");
    let detail = format!("expected content type `{accepts}`, found `{JSON}`");
    let exception = Exception::new("kombu.exceptions", "ContentDisallowed", &detail);
    let record = told(request, &exception);
    refuse(&request.parts.shared, held, Some(request.label()), "content-refused", detail, record)
}

fn label(message: &TaskMessage) -> (TaskId, TaskName) {
    (message.headers.id.clone(), message.headers.task.clone())
}

/// A FAILURE for whoever waits for a task that will not run.
fn told<E: Executor>(request: &Request<E>, exception: &Exception) -> Option<Store> {
    let record = request.record(State::Failure, exception.encode(), request.children());
    record.map(|record| request.store(record))
}

/// The same for a task that is not known here, by what its message says.
fn told_of_stranger(shared: &Shared, message: &TaskMessage, exception: &Exception) -> Option<Store> {
    let TaskMessage { headers, properties, .. } = message;
    (headers.ignore_result != Some(true)).then(|| Store {
        reply_to: properties.reply_to.clone(),
        correlation_id: properties.correlation_id.clone(),
        ..shared.store(shared.failure(headers.id.clone(), exception))
    })
}

/// A dead letter, and a record for whoever waits, where it is known for whom.
fn refuse(
    shared: &Shared,
    held: Held,
    task: Option<(TaskId, TaskName)>,
    kind: &str,
    detail: String,
    record: Option<Store>,
) -> Commit {
    let (id, name) = task.as_ref().map(|(id, name)| (id.as_str(), name.as_str())).unzip();
    tracing::error!(task_id = id, task_name = name, queue = %held.delivery.queue, "message refused ({kind}): {detail}");
    let commit = Commit { task, records: record.into_iter().collect(), ..Commit::default() };
    end(held, commit, Ending::Refused(shared.reason(kind, detail)))
}

/// Whatever ends here was not started, so no policy of its task's applies.
fn end(held: Held, commit: Commit, ending: Ending) -> Commit {
    commit.ended(Some(held), ending, AckPolicy::default())
}
