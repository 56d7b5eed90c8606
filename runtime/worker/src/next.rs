//! Next: from an outcome to what is stored, what is published and how the delivery ends. Waits for nothing, sends nothing.
//!
//! One arm per outcome. What follows a task is canvas's to say; what the broker is told is [`crate::ending`]'s.

use std::sync::PoisonError;

use bytes::Bytes;
use rwork_canvas::{FailedStep, Next, may_retry};
use rwork_protocol::json::{self, Kind};
use rwork_protocol::{Exception, Extended, Record, RevokeReason, Signature, State};
use rwork_sandbox::{Failure, JSON, KillReason, Outcome, Payload, Report, Retry, RetryLimit, Trap};

use crate::commit::{Commit, Held};
use crate::ending::{AckPolicy, Ending, disposition};
use crate::executor::{Executor, TaskVersion};
use crate::outage::chain;
use crate::request::Request;
use crate::retry::{limit, retry};
use crate::signatures;

/// Module of exceptions that name none.
const OWN_MODULE: &str = "rwork.errors";

/// What one outcome comes to, before it is known what the broker is told.
pub(crate) struct Effects {
    pub(crate) ending: Ending,
    pub(crate) commit: Commit,
}

/// The commit that ends a run. `held` is absent after an early ack.
pub(crate) fn after<E: Executor>(request: &Request<E>, held: Option<Held>, report: Report) -> Commit {
    let can_return = held.is_some();
    let effects = match report.outcome {
        Outcome::Success(result) => succeed(request, result),
        Outcome::Failed(failure) => fail_or_retry(request, failure, |reason| Ending::Failed { reason }),
        Outcome::Retry(wish) => retry(request, wish),
        Outcome::Ignore => Effects::none(Ending::Ignored),
        Outcome::Reject { requeue, reason } => reject(request, requeue && can_return, &reason),
        Outcome::Replace(signature) => replace(request, signature),
        Outcome::SoftTimeLimit { failure, .. } => {
            fail_or_retry(request, soft_time_limit(failure), |reason| Ending::SoftTimeLimit { reason })
        }
        Outcome::HardTimeLimit { limit, backtrace } => {
            log_backtrace(request, backtrace.as_deref());
            let exception = Exception::hard_time_limit(limit);
            unless_returned(request, can_return, Ending::HardTimeLimit, &exception).with_traceback(backtrace)
        }
        Outcome::MemoryLimit { cap, wanted } => {
            unless_returned(request, can_return, Ending::MemoryLimit, &Exception::memory_limit(cap, wanted))
        }
        Outcome::ResultTooLarge { limit, size } => too_large(request, limit, size),
        Outcome::Trap(trap) => trapped(request, can_return, trap),
        Outcome::Killed(KillReason::Revoked) => revoked(request),
        Outcome::Killed(_) => unless_returned(
            request,
            can_return,
            Ending::ShutDown,
            &Exception::worker_lost("the worker was shut down"),
        ),
        Outcome::HostFault(fault) => {
            tracing::error!(task_id = %request.id(), task_name = %request.name(), fault, "host fault");
            unless_returned(request, can_return, Ending::HostFault, &Exception::host_fault(&fault))
        }
        other => {
            tracing::error!(task_id = %request.id(), task_name = %request.name(), ?other, "unknown outcome");
            unless_returned(request, can_return, Ending::HostFault, &Exception::host_fault("unknown outcome"))
        }
    };
    effects.log(request, report.usage.wall.as_secs_f64() * 1e3);
    Commit { task: Some(request.label()), ..effects.commit }.ended(
        held,
        effects.ending,
        ack_policy(&request.task),
    )
}

/// A task that fails before it could run, because of its message.
pub(crate) fn fail_unrun<E: Executor>(request: &Request<E>, held: Held, exception: &Exception) -> Commit {
    let effects = fail(request, exception, None, |reason| Ending::Failed { reason });
    effects.log(request, 0.0);
    Commit { task: Some(request.label()), ..effects.commit }.ended(
        Some(held),
        effects.ending,
        ack_policy(&request.task),
    )
}

/// A message whose success is stored already: only what follows may still be missing, and the ack.
pub(crate) fn repeat<E: Executor>(request: &Request<E>, held: Held, record: &Record) -> Commit {
    tracing::info!(task_id = %request.id(), task_name = %request.name(), "not run again: it has succeeded before");
    let next = request
        .parts
        .with_context(|context| rwork_canvas::on_success(&request.message, &record.result, context));
    let follow_ups = next.map(|next| request.parts.publish_all(next.publish)).unwrap_or_default();
    let commit = Commit { task: Some(request.label()), follow_ups, ..Commit::default() };
    commit.ended(Some(held), Ending::Repeated, AckPolicy::default())
}

/// A task's choices about acks.
pub(crate) fn ack_policy(task: &impl TaskVersion) -> AckPolicy {
    let options = task.options();
    AckPolicy {
        acks_late: options.acks_late,
        acks_on_failure: options.acks_on_failure,
        acks_on_timeout: options.acks_on_timeout,
        reject_on_worker_lost: options.reject_on_worker_lost,
    }
}

fn succeed<E: Executor>(request: &Request<E>, result: Payload) -> Effects {
    if result.content_type != JSON {
        let found = format!("expected a result of type {JSON}, got {}", result.content_type);
        return fail_encoding(request, &found);
    }
    if let Err(error) = json::check(&result.data) {
        return fail_encoding(request, &format!("expected a result in JSON: {error}"));
    }
    let limit = request.parts.shared.backend.record_bytes_max().saturating_sub(request.record_overhead());
    if result.data.len() > limit && !request.ignores_result() {
        return too_large(request, limit, result.data.len());
    }
    let next = request
        .parts
        .with_context(|context| rwork_canvas::on_success(&request.message, &result.data, context));
    let next = match next {
        Ok(next) => next,
        // As Celery does: what can't be followed up is a failure.
        Err(error) => return fail_follow_up(request, &chain(&error)),
    };
    let children = children(request, next.children.as_ref());
    let record = request.record(State::Success, result.data, children);
    Effects {
        ending: Ending::Succeeded,
        commit: Commit {
            records: record.map(|record| request.store(record)).into_iter().collect(),
            follow_ups: request.parts.publish_all(next.publish),
            ..Commit::default()
        },
    }
}

fn fail_encoding<E: Executor>(request: &Request<E>, found: &str) -> Effects {
    let exception = Exception::new("kombu.exceptions", "EncodeError", found);
    fail(request, &exception, None, |reason| Ending::Failed { reason })
}

pub(crate) fn fail_follow_up<E: Executor>(request: &Request<E>, why: &str) -> Effects {
    let exception = Exception::new(OWN_MODULE, "FollowUpError", why);
    fail(request, &exception, None, |reason| Ending::Failed { reason })
}

/// The task's own error: the next attempt where its policy says so, else FAILURE.
fn fail_or_retry<E: Executor>(
    request: &Request<E>,
    failure: Failure,
    ending: impl FnOnce(rwork_broker::Reason) -> Ending,
) -> Effects {
    let options = request.task.options();
    let retries = request.message.headers.retries;
    let wanted = failure.retryable && options.autoretries(&failure.exc_type, failure.exc_module.as_deref());
    if wanted && may_retry(retries, limit(options.max_retries)) {
        let wish = Retry {
            delay: None,
            limit: RetryLimit::Inherit,
            input: None,
            cause: Some(failure),
            options: String::new(),
        };
        return retry(request, wish);
    }
    fail(request, &exception(&failure), failure.traceback, ending)
}

/// Stores FAILURE, for every step that will never run too, and calls the errbacks.
pub(crate) fn fail<E: Executor>(
    request: &Request<E>,
    exception: &Exception,
    traceback: Option<String>,
    ending: impl FnOnce(rwork_broker::Reason) -> Ending,
) -> Effects {
    let next = request.parts.with_context(|context| rwork_canvas::on_failure(&request.message, context));
    for error in &next.refused {
        tracing::error!(task_id = %request.id(), task_name = %request.name(), error = %chain(error), "an errback can't be sent");
    }
    let own = request.record(State::Failure, exception.encode(), children(request, next.children.as_ref()));
    let own = own.map(|record| Record { traceback: traceback.clone(), ..record });
    let records = own.into_iter().chain(also_failed(request, &next, exception, traceback.as_deref()));
    let detail = exception.to_string();
    Effects {
        ending: ending(request.parts.shared.reason("failed", detail)),
        commit: Commit {
            records: records.map(|record| request.store(record)).collect(),
            follow_ups: request.parts.publish_all(next.publish),
            ..Commit::default()
        },
    }
}

/// Without these a client that waits for the end of a chain waits for ever.
fn also_failed<E: Executor>(
    request: &Request<E>,
    next: &Next,
    exception: &Exception,
    traceback: Option<&str>,
) -> Vec<Record> {
    let shared = &request.parts.shared;
    let failed = next.also_fail.iter().map(|step| Record {
        traceback: traceback.map(str::to_owned),
        group_id: step.group_id.clone(),
        extended: shared.config.result_extended.then(|| Box::new(never_called(step))),
        ..shared.failure(step.id.clone(), exception)
    });
    failed.collect()
}

fn never_called(step: &FailedStep) -> Extended {
    Extended {
        name: Some(step.task.as_str().to_owned()),
        args: Some(step.args.clone()),
        kwargs: Some(step.kwargs.clone()),
        retries: Some(0),
        ..Extended::default()
    }
}

/// A failure, unless the delivery goes back to be run again: then nothing has become of it yet.
fn unless_returned<E: Executor>(
    request: &Request<E>,
    can_return: bool,
    ending: Ending,
    exception: &Exception,
) -> Effects {
    use rwork_broker::Disposition::{Release, Requeue};
    let told = disposition(&ending, ack_policy(&request.task));
    if can_return && matches!(told, Some(Requeue | Release)) {
        return Effects::none(ending);
    }
    fail(request, exception, None, |_| ending)
}

fn too_large<E: Executor>(request: &Request<E>, limit: usize, size: usize) -> Effects {
    fail(request, &Exception::result_too_large(limit, size), None, |reason| Ending::ResultTooLarge { reason })
}

/// Celery's word for a task that takes its surroundings with it, so that its clients raise their own class.
fn trapped<E: Executor>(request: &Request<E>, can_return: bool, trap: Trap) -> Effects {
    log_backtrace(request, trap.backtrace.as_deref());
    let exception = Exception::worker_lost(&format!("Worker exited prematurely: {}", trap.message));
    unless_returned(request, can_return, Ending::Trapped, &exception).with_traceback(trap.backtrace)
}

fn revoked<E: Executor>(request: &Request<E>) -> Effects {
    let exception = Exception::revoked(RevokeReason::Terminated);
    let record = request.record(State::Revoked, exception.encode(), children(request, None));
    let records = record.map(|record| request.store(record)).into_iter().collect();
    Effects { ending: Ending::Revoked, commit: Commit { records, ..Commit::default() } }
}

/// Celery 5.7: a refused message fails its task, one that goes back to the queue leaves no record.
fn reject<E: Executor>(request: &Request<E>, requeue: bool, why: &str) -> Effects {
    let rejected = Ending::Rejected { requeue, reason: request.parts.shared.reason("rejected", why) };
    if requeue {
        return Effects::none(rejected);
    }
    fail(request, &Exception::reject(why), None, |_| rejected)
}

fn replace<E: Executor>(request: &Request<E>, signature: Payload) -> Effects {
    match replacement(request, &signature) {
        Ok(next) => Effects {
            ending: Ending::Replaced,
            commit: Commit { follow_ups: request.parts.publish_all(next.publish), ..Commit::default() },
        },
        Err(why) => fail_follow_up(request, &why),
    }
}

/// A task may be replaced by itself, and by what it may send.
fn replacement<E: Executor>(request: &Request<E>, payload: &Payload) -> Result<Next, String> {
    if payload.content_type != JSON {
        return Err(format!("expected a signature of type {JSON}, got {}", payload.content_type));
    }
    let signature = Signature::parse(&payload.data).map_err(|error| chain(&error))?;
    let named = signatures::tasks_of_signature(&payload.data)?;
    let own = request.name().as_str();
    if let Some(task) = named.iter().find(|task| *task != own && !request.task.may_submit(task)) {
        let plugin = request.task.plugin();
        return Err(format!("not granted: `{task}` is not in `submit` of `[plugins.{plugin}.grants]`"));
    }
    let next =
        request.parts.with_context(|context| rwork_canvas::replace(&request.message, &signature, context));
    next.map_err(|error| chain(&error))
}

/// A guest's failure as records hold it. Arguments that are no JSON array give way to the message.
pub(crate) fn exception(failure: &Failure) -> Exception {
    let module = failure.exc_module.as_deref().unwrap_or(OWN_MODULE);
    let args = &failure.exc_args;
    if args.content_type == JSON && json::check(&args.data) == Ok(Kind::Array) {
        return Exception::with_args(module, &failure.exc_type, args.data.clone());
    }
    Exception::new(module, &failure.exc_type, &failure.message)
}

/// Whatever the guest called it, its soft limit is why it failed.
fn soft_time_limit(failure: Failure) -> Failure {
    let exception = Exception::soft_time_limit();
    Failure {
        exc_type: exception.exc_type,
        exc_module: Some(exception.exc_module),
        exc_args: Payload::json(exception.exc_message),
        ..failure
    }
}

/// What the guest has sent while it ran, then what follows it: one JSON array.
pub(crate) fn children<E: Executor>(request: &Request<E>, after: Option<&Bytes>) -> Bytes {
    let sent = std::mem::take(&mut *request.sent.lock().unwrap_or_else(PoisonError::into_inner));
    match after {
        None if sent.is_empty() => Bytes::from_static(b"[]"),
        None => json::array_of(&sent),
        Some(after) if sent.is_empty() => after.clone(),
        // Both are arrays of our own making.
        Some(after) => json::prepend(after, &sent).unwrap_or_else(|_| after.clone()),
    }
}

fn log_backtrace<E: Executor>(request: &Request<E>, backtrace: Option<&str>) {
    if let Some(backtrace) = backtrace {
        tracing::debug!(task_id = %request.id(), task_name = %request.name(), "where it was:\n{backtrace}");
    }
}

impl Effects {
    fn none(ending: Ending) -> Self {
        Self { ending, commit: Commit::default() }
    }

    /// Where the guest was when it was ended, for whoever reads its failure.
    fn with_traceback(mut self, backtrace: Option<String>) -> Self {
        for store in self.commit.records.iter_mut().filter(|store| store.record.status == State::Failure) {
            store.record.traceback.clone_from(&backtrace);
        }
        self
    }

    /// One line per outcome; a success costs nothing where `info` is off.
    fn log<E: Executor>(&self, request: &Request<E>, wall_ms: f64) {
        let (id, name) = (request.id(), request.name());
        macro_rules! line {
            ($level:ident, $($text:tt)*) => { tracing::$level!(task_id = %id, task_name = %name, wall_ms, $($text)*) };
        }
        match &self.ending {
            Ending::Succeeded => line!(info, "task succeeded"),
            Ending::Ignored => line!(info, "task ignored"),
            Ending::Replaced => line!(info, "task replaced"),
            Ending::Retried => line!(warn, "task will be retried"),
            Ending::Revoked => line!(warn, "task revoked while it ran"),
            Ending::ShutDown => line!(warn, "task ended by shutdown"),
            Ending::HardTimeLimit => line!(warn, "task ended at its hard time limit"),
            Ending::MemoryLimit => line!(warn, "task ended for want of memory"),
            Ending::Trapped => line!(warn, "task trapped: {}", self.what()),
            Ending::SoftTimeLimit { .. } => line!(warn, "task failed with its soft time limit"),
            Ending::ResultTooLarge { reason } | Ending::Failed { reason } => {
                line!(warn, "task failed: {}", reason.detail)
            }
            Ending::Rejected { requeue, reason } => {
                line!(warn, requeue, "task rejected its message: {}", reason.detail)
            }
            _ => {}
        }
    }

    /// The stored exception, for people.
    fn what(&self) -> String {
        let record = self.commit.records.first().map(|store| &store.record);
        record
            .and_then(Record::exception)
            .map_or_else(|| "it goes back to its queue".to_owned(), |it| it.to_string())
    }
}
