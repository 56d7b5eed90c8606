//! Execute: one request on one slot, from the early ack to the outcome. One spawned task each.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rwork_protocol::Exception;
use rwork_sandbox::{CleanupReason, Invocation, KillReason, Outcome, Report, Stop, Usage};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Became, Effects, Fenced, Held, Subject as _, TaskCommit};
use crate::ending::{AckPolicy, Ending};
use crate::executor::{Executor, TaskVersion};
use crate::next;
use crate::request::{Accepted, Request};
use crate::session::Over;

/// What a run leaves behind for the pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    /// Its number in the pipe; `None`: it was no run.
    pub(crate) number: Option<u64>,
    /// What it cost; `None`: it did not run after all.
    pub(crate) usage: Option<Usage>,
}

/// Runs a request and hands its outcome over. An outcome that finds no room waits, and with it the admission of others.
pub(crate) async fn execute<E: Executor>(
    accepted: Accepted<E>,
    slot: E::Slot,
    stop: Stop,
    number: u64,
) -> Finished {
    let Accepted { held, request } = accepted;
    let number = Some(number);
    // Boxed, like what else is rare here: this future is moved several times for each task.
    let held = match may_begin(&request, &held) {
        true => Some(held),
        false => match Box::pin(begin(&request, held)).await {
            Ok(held) => held,
            Err(NotNow) => return Finished { number, usage: None },
        },
    };
    tracing::debug!(task_id = %request.id(), task_name = %request.name(), plugin = request.task.plugin(), "task started");
    let cleanup = request.task.options().cleanup.then(|| Box::new(request.invocation(Stop::default())));
    let report = run(&request, slot, request.invocation(stop)).await;
    let usage = Some(report.usage);
    let hook = cleanup.zip(cleanup_reason(&report.outcome));
    // Whoever commits has gone only when the worker ends: the message is redelivered then.
    let _ = send(&request, next::after(&request, held, report)).await;
    if let Some((invocation, reason)) = hook {
        let hook = request.parts.executor.cleanup(&request.task, *invocation, reason);
        Box::pin(hook).await;
    }
    Finished { number, usage }
}

/// True if nothing has to be written down or waited for before the run, as is so for nearly all.
fn may_begin<E: Executor>(request: &Request<E>, held: &Held) -> bool {
    let is_first = next::ack_policy(&request.task).acks_late && !held.delivery.redelivered;
    is_first && !request.task.options().track_started && held.session.is_fresh()
}

/// The task must not run: its delivery is not ours, or its start could not be written down.
struct NotNow;

/// Steps before the run: the early ack where the task wants it (`None` is left of the delivery then), the start of a
/// message that may have begun before, STARTED, and last a renewal that is fresh, since all of that may have taken long.
async fn begin<E: Executor>(request: &Arc<Request<E>>, held: Held) -> Result<Option<Held>, NotNow> {
    let started = request.task.options().track_started.then(|| request.started()).flatten();
    let effects = Effects {
        records: started.into_iter().map(|record| request.store(record)).collect(),
        ..Effects::default()
    };
    let policy = next::ack_policy(&request.task);
    if !policy.acks_late {
        let early = request.commit(effects).ended(Some(held), Ending::Starting, policy);
        return match confirmed(request, early).await? {
            Became::Done => Ok(None),
            Became::Lost | Became::Refused(_) => Err(NotNow),
        };
    }
    #[cfg(test)]
    if request.parts.shared.errs(crate::sim::Mistake::UnwrittenStart) {
        return Ok(Some(held));
    }
    if held.delivery.redelivered {
        let fenced = Fenced::Starts(held.fence());
        let step = TaskCommit { fenced, ..request.step(effects) };
        match confirmed(request, step).await? {
            Became::Refused(why) => return give_up(request, held, why).await,
            Became::Lost => return Err(NotNow),
            Became::Done => {}
        }
    } else if !effects.records.is_empty() {
        send(request, request.step(effects)).await?;
    }
    #[cfg(test)]
    if request.parts.shared.errs(crate::sim::Mistake::StaleStart) {
        return Ok(Some(held));
    }
    until_fresh(&held).await?;
    Ok(Some(held))
}

/// Waits until nobody can have reaped us.
async fn until_fresh(held: &Held) -> Result<(), NotNow> {
    match held.session.until_fresh().await {
        // Nobody else has it.
        Ok(()) | Err(Over::Forgotten) => Ok(()),
        Err(Over::Dead) => Err(NotNow),
    }
}

/// Commits a step and waits until it is done.
async fn confirmed<E: Executor>(request: &Arc<Request<E>>, step: TaskCommit) -> Result<Became, NotNow> {
    let (reply, answer) = oneshot::channel();
    send(request, TaskCommit { reply: Some(reply), ..step }).await?;
    answer.await.map_err(|_| NotNow)
}

/// The start of a message can't be written down: it becomes a dead letter, or it could kill one worker after the other.
async fn give_up<E: Executor>(
    request: &Arc<Request<E>>,
    held: Held,
    why: String,
) -> Result<Option<Held>, NotNow> {
    let exception = Exception::worker_lost(&why);
    let ending = Ending::Refused(request.parts.shared.reason("start-refused", why));
    let commit = request.commit(request.fail(&exception));
    send(request, commit.ended(Some(held), ending, AckPolicy::default())).await?;
    Err(NotNow)
}

async fn send<E: Executor>(request: &Request<E>, commit: TaskCommit) -> Result<(), NotNow> {
    let commits = request.commits.upgrade().ok_or(NotNow)?;
    match commits.try_send(commit) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(commit)) => Box::pin(commits.send(commit)).await.map_err(|_| NotNow),
        Err(TrySendError::Closed(_)) => Err(NotNow),
    }
}

/// A request that was not started goes back to the head of its queue.
pub(crate) fn released<E: Executor>(accepted: Accepted<E>) -> (mpsc::WeakSender<TaskCommit>, TaskCommit) {
    let Accepted { request, held } = accepted;
    let commit = request.commit(Effects::default());
    #[cfg(test)]
    if request.parts.shared.errs(crate::sim::Mistake::CountUnstarted) {
        return (request.commits.clone(), commit.ended(Some(held), Ending::HostFault, AckPolicy::default()));
    }
    (request.commits.clone(), commit.ended(Some(held), Ending::Released, AckPolicy::default()))
}

/// Runs the invocation. A panic of the executor is rwork's own fault, and must not keep the delivery.
fn run<E: Executor>(
    request: &Request<E>,
    slot: E::Slot,
    invocation: Invocation,
) -> impl Future<Output = Report> {
    let run = request.parts.executor.execute(slot, &request.task, invocation);
    AssertUnwindSafe(run).catch_unwind().map(|report| {
        report.unwrap_or_else(|_| Report {
            outcome: Outcome::HostFault("the executor panicked".to_owned()),
            usage: Usage::default(),
        })
    })
}

fn cleanup_reason(outcome: &Outcome) -> Option<CleanupReason> {
    match outcome {
        Outcome::HardTimeLimit { .. } => Some(CleanupReason::HardTimeLimit),
        Outcome::MemoryLimit { .. } => Some(CleanupReason::MemoryLimit),
        Outcome::Trap(trap) => Some(CleanupReason::Trap(trap.message.clone())),
        Outcome::Killed(KillReason::Revoked) => Some(CleanupReason::Revoked),
        _ => None,
    }
}

/// How long a run kept one CPU slot's worth of this worker busy: its CPU time, or its share of the places in flight
/// where those are what is scarce.
pub(crate) fn occupied(usage: Usage, concurrency: usize, max_in_flight: usize) -> Duration {
    let share = concurrency as f64 / max_in_flight.max(1) as f64;
    usage.cpu.max(usage.wall.mul_f64(share.min(1.0)))
}
