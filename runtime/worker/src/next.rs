//! Next: from an outcome to what is stored, what is published and how the delivery ends. Waits for nothing, sends nothing.
//!
//! One arm per outcome. What follows a task is canvas's to say; what the broker is told is [`crate::ending`]'s.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use rwork_canvas::{Next, may_retry};
use rwork_protocol::json::{self, Kind};
use rwork_protocol::{Exception, Record, RevokeReason, Signature, State};
use rwork_sandbox::{Failure, JSON, KillReason, Outcome, Payload, Report, Retry, RetryLimit, Trap};

use crate::commit::{Effects, Held, TaskCommit};
use crate::ending::{AckPolicy, Ending, disposition};
use crate::executor::{Executor, TaskVersion};
use crate::outage::chain;
use crate::request::Request;
use crate::retry::{limit, retry};
use crate::signatures;

/// Module of exceptions that name none.
const OWN_MODULE: &str = "rwork.errors";

/// What one outcome comes to, before it is known what the broker is told.
pub(crate) struct Verdict {
    pub(crate) ending: Ending,
    pub(crate) effects: Effects,
    /// Addition to the log line; empty: nothing.
    pub(crate) detail: String,
}

/// The commit that ends a run. `held` is absent after an early ack.
pub(crate) fn after<E: Executor>(
    request: &Arc<Request<E>>,
    held: Option<Held>,
    report: Report,
) -> TaskCommit {
    let can_return = held.is_some();
    let verdict = match report.outcome {
        Outcome::Success(result) => succeed(request, result),
        Outcome::Failed(failure) => fail_or_retry(request, failure, |reason| Ending::Failed { reason }),
        Outcome::Retry(wish) => retry(request, wish),
        Outcome::Ignore => Verdict::none(Ending::Ignored),
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
    let wall_ms = report.usage.wall.as_secs_f64() * 1e3;
    TaskCommit { wall_ms, ..verdict.commit(request, held) }
}

/// A task that fails before it could run, because of its message.
pub(crate) fn fail_unrun<E: Executor>(
    request: &Arc<Request<E>>,
    held: Held,
    exception: &Exception,
) -> TaskCommit {
    fail(request, exception, None, |reason| Ending::Failed { reason }).commit(request, Some(held))
}

/// A message whose success is stored already: only what follows may still be missing, and the ack.
pub(crate) fn repeat<E: Executor>(request: &Arc<Request<E>>, held: Held, record: &Record) -> TaskCommit {
    let next = request
        .parts
        .with_context(|context| rwork_canvas::on_success(&request.message, &record.result, context));
    let follow_ups = next.map(|next| request.parts.publish_all(next.publish)).unwrap_or_default();
    let verdict = Verdict::new(Ending::Repeated, Effects { follow_ups, ..Effects::default() });
    verdict.commit(request, Some(held))
}

/// Past its `expires`: REVOKED, as Celery has it (`celery-wire.md` §6.6).
pub(crate) fn expired<E: Executor>(request: &Arc<Request<E>>, held: Held) -> TaskCommit {
    let effects = revoke(request, RevokeReason::Expired);
    Verdict::new(Ending::Expired, effects).commit(request, Some(held))
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

fn succeed<E: Executor>(request: &Request<E>, result: Payload) -> Verdict {
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
    let effects = Effects {
        records: record.map(|record| request.store(record)).into_iter().collect(),
        follow_ups: request.parts.publish_all(next.publish),
    };
    Verdict::new(Ending::Succeeded, effects)
}

fn fail_encoding<E: Executor>(request: &Request<E>, found: &str) -> Verdict {
    let exception = Exception::new("kombu.exceptions", "EncodeError", found);
    fail(request, &exception, None, |reason| Ending::Failed { reason })
}

pub(crate) fn fail_follow_up<E: Executor>(request: &Request<E>, why: &str) -> Verdict {
    let exception = Exception::new(OWN_MODULE, "FollowUpError", why);
    fail(request, &exception, None, |reason| Ending::Failed { reason })
}

/// The task's own error: the next attempt where its policy says so, else FAILURE.
fn fail_or_retry<E: Executor>(
    request: &Request<E>,
    failure: Failure,
    ending: impl FnOnce(rwork_broker::Reason) -> Ending,
) -> Verdict {
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
) -> Verdict {
    let effects = request.fail_with(State::Failure, exception, traceback.as_deref());
    Verdict::new(ending(request.parts.shared.reason("failed", exception.to_string())), effects)
}

/// A failure, unless the delivery goes back to be run again: then nothing has become of it yet.
fn unless_returned<E: Executor>(
    request: &Request<E>,
    can_return: bool,
    ending: Ending,
    exception: &Exception,
) -> Verdict {
    use rwork_broker::Disposition::{Interrupt, Requeue};
    let told = disposition(&ending, ack_policy(&request.task));
    if can_return && matches!(told, Some(Requeue | Interrupt)) {
        return Verdict::none(ending);
    }
    fail(request, exception, None, |_| ending)
}

fn too_large<E: Executor>(request: &Request<E>, limit: usize, size: usize) -> Verdict {
    fail(request, &Exception::result_too_large(limit, size), None, |reason| Ending::ResultTooLarge { reason })
}

/// Celery's word for a task that takes its surroundings with it, so that its clients raise their own class.
fn trapped<E: Executor>(request: &Request<E>, can_return: bool, trap: Trap) -> Verdict {
    log_backtrace(request, trap.backtrace.as_deref());
    let exception = Exception::worker_lost(&format!("Worker exited prematurely: {}", trap.message));
    let verdict = unless_returned(request, can_return, Ending::Trapped, &exception);
    let verdict = verdict.with_traceback(trap.backtrace);
    Verdict { detail: exception.to_string(), ..verdict }
}

fn revoked<E: Executor>(request: &Request<E>) -> Verdict {
    Verdict::new(Ending::Revoked, revoke(request, RevokeReason::Terminated))
}

fn revoke<E: Executor>(request: &Request<E>, reason: RevokeReason) -> Effects {
    request.fail_with(State::Revoked, &Exception::revoked(reason), None)
}

/// Celery 5.7: a refused message fails its task, one that goes back to the queue leaves no record.
fn reject<E: Executor>(request: &Request<E>, requeue: bool, why: &str) -> Verdict {
    let rejected = Ending::Rejected { requeue, reason: request.parts.shared.reason("rejected", why) };
    if requeue {
        return Verdict::none(rejected);
    }
    fail(request, &Exception::reject(why), None, |_| rejected)
}

fn replace<E: Executor>(request: &Request<E>, signature: Payload) -> Verdict {
    match replacement(request, &signature) {
        Ok(next) => {
            let follow_ups = request.parts.publish_all(next.publish);
            Verdict::new(Ending::Replaced, Effects { follow_ups, ..Effects::default() })
        }
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

impl Verdict {
    pub(crate) fn new(ending: Ending, effects: Effects) -> Self {
        Self { ending, effects, detail: String::new() }
    }

    fn none(ending: Ending) -> Self {
        Self::new(ending, Effects::default())
    }

    /// Where the guest was when it was ended, for whoever reads its failure.
    fn with_traceback(mut self, backtrace: Option<String>) -> Self {
        for store in self.effects.records.iter_mut().filter(|store| store.record.status == State::Failure) {
            store.record.traceback.clone_from(&backtrace);
        }
        self
    }

    fn commit<E: Executor>(self, request: &Arc<Request<E>>, held: Option<Held>) -> TaskCommit {
        let commit = request.commit(self.effects);
        TaskCommit { detail: self.detail, ..commit }.ended(held, self.ending, ack_policy(&request.task))
    }
}
