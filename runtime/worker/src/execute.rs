//! Execute: one request on one slot, from the early ack to the outcome. One spawned task each.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rwork_sandbox::{CleanupReason, Invocation, KillReason, Outcome, Report, Stop, Usage};
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Commit, Committed, Held};
use crate::ending::Ending;
use crate::executor::{Executor, TaskVersion};
use crate::next;
use crate::request::{Accepted, Request};

/// The right to hand over one outcome, taken before the run, so that no outcome ever waits for room.
pub(crate) type Permit = mpsc::OwnedPermit<Commit>;

/// What a run leaves behind for the pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    /// Its number in the pipe.
    pub(crate) number: u64,
    /// What it cost; `None`: it did not run after all.
    pub(crate) usage: Option<Usage>,
}

/// Runs a request and hands its outcome over.
pub(crate) async fn execute<E: Executor>(
    accepted: Accepted<E>,
    slot: E::Slot,
    permit: Permit,
    stop: Stop,
    number: u64,
) -> Finished {
    let Accepted { held, request } = accepted;
    let Ok(held) = begin(&request, held).await else { return Finished { number, usage: None } };
    let invocation = request.invocation(stop);
    let cleanup = request.task.options().cleanup.then(|| invocation.clone());
    let report = run(&request, slot, invocation).await;
    let usage = Some(report.usage);
    let hook = cleanup.zip(cleanup_reason(&report.outcome));
    permit.send(next::after(&request, held, report));
    if let Some((invocation, reason)) = hook {
        let invocation = Invocation { stop: Stop::default(), ..invocation };
        request.parts.executor.cleanup(&request.task, invocation, reason).await;
    }
    Finished { number, usage }
}

/// The delivery is not ours any more, so the task must not run.
struct NotOurs;

/// What precedes the run: the early ack, confirmed, where the task wants it (`None` is left of the delivery then), and
/// STARTED.
async fn begin<E: Executor>(request: &Arc<Request<E>>, held: Held) -> Result<Option<Held>, NotOurs> {
    if held.session.is_lost() {
        return Err(NotOurs);
    }
    let settler = request.parts.shared.settler.upgrade().ok_or(NotOurs)?;
    let early = Commit { task: Some(request.label()), ..Commit::default() };
    let policy = next::ack_policy(&request.task);
    let held = if policy.acks_late {
        Some(held)
    } else {
        let (reply, answer) = oneshot::channel();
        let early = Commit { reply: Some(reply), ..early.ended(Some(held), Ending::Starting, policy) };
        settler.send(early).await.map_err(|_| NotOurs)?;
        match answer.await {
            Ok(Committed::Done) => None,
            Ok(Committed::Lost | Committed::Refused) | Err(_) => return Err(NotOurs),
        }
    };
    if request.task.options().track_started
        && let Some(record) = request.started()
    {
        settler.send(request.note(record)).await.map_err(|_| NotOurs)?;
    }
    tracing::debug!(task_id = %request.id(), task_name = %request.name(), plugin = request.task.plugin(), "task started");
    Ok(held)
}

/// Runs the invocation. A panic of the executor is rwork's own fault, and must not keep the delivery.
async fn run<E: Executor>(request: &Request<E>, slot: E::Slot, invocation: Invocation) -> Report {
    let run = request.parts.executor.execute(slot, &request.task, invocation);
    AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| Report {
        outcome: Outcome::HostFault("the executor panicked".to_owned()),
        usage: Usage::default(),
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
