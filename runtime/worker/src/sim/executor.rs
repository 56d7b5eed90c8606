//! The model executor: tasks that behave as their names say, in versions that change while they run.

use std::sync::Arc;
use std::time::Duration;

use rwork_plugin::EffectiveOptions;
use rwork_protocol::Signature;
use rwork_sandbox::{
    CleanupReason, Failure, Invocation, Outcome, Payload, Report, Retry, RetryLimit, Trap, Usage,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::ledger::{Ended, Mark, Start};
use super::tasks;
use super::world::World;
use crate::executor::{Executor, TaskVersion};

#[derive(Clone, Debug)]
pub(crate) struct ModelExecutor {
    world: World,
    worker: u64,
    slots: Arc<Semaphore>,
}

/// One version of a task. Every swap makes new ones of all.
#[derive(Clone, Debug)]
pub(crate) struct ModelTask {
    options: Arc<EffectiveOptions>,
    digest: String,
}

impl ModelExecutor {
    pub(super) fn new(world: World, worker: u64, slots: usize) -> Self {
        Self { world, worker, slots: Arc::new(Semaphore::new(slots)) }
    }
}

impl TaskVersion for ModelTask {
    fn options(&self) -> &EffectiveOptions {
        &self.options
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn plugin(&self) -> &str {
        "model"
    }

    fn may_submit(&self, task: &str) -> bool {
        task == "ok"
    }
}

impl Executor for ModelExecutor {
    type Task = ModelTask;
    type Slot = OwnedSemaphorePermit;

    fn lookup(&self, name: &str) -> Option<ModelTask> {
        let options = Arc::new(tasks::options(name)?);
        let version = self.world.lock().plugin_version;
        Some(ModelTask { options, digest: format!("sha256:{version}") })
    }

    fn try_admit(&self, _: &ModelTask) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    async fn admit(&self, _: &ModelTask) -> OwnedSemaphorePermit {
        Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed")
    }

    async fn execute(&self, slot: OwnedSemaphorePermit, task: &ModelTask, invocation: Invocation) -> Report {
        let mark = mark(&invocation);
        let (serial, receipt) = (mark.serial, mark.receipt);
        self.note_start(mark, !task.options.acks_late);
        self.world.trace(|| format!("message {serial} ({}) runs by {receipt:?}", invocation.id));
        let began = Instant::now();
        let outcome = tokio::select! {
            biased;
            reason = invocation.stop.wait_killed() => Outcome::Killed(reason),
            outcome = self.behave(&invocation) => outcome,
        };
        self.world.while_stopped(self.worker).await;
        self.world.trace(|| format!("message {serial} ({}) ends by {receipt:?}: {outcome:?}", invocation.id));
        let ended = match &outcome {
            Outcome::Killed(_) => Ended::Killed,
            Outcome::HostFault(_) | Outcome::Reject { requeue: true, .. } => Ended::Returned,
            _ => Ended::Final,
        };
        self.world.lock().ledger.run_ends(mark, ended);
        drop(slot);
        let wall = began.elapsed();
        Report { outcome, usage: Usage { wall, cpu: wall, ..Usage::default() } }
    }

    async fn cleanup(&self, _: &ModelTask, invocation: Invocation, reason: CleanupReason) {
        sleep(Duration::from_millis(5)).await;
        self.world.trace(|| format!("{} is cleaned up after: {reason:?}", invocation.id));
    }
}

/// The delivery that an invocation is of, as the model broker wrote it down.
fn mark(invocation: &Invocation) -> Mark {
    Mark::parse(invocation.info.correlation_id.as_deref().unwrap_or_default()).unwrap()
}

impl ModelExecutor {
    fn note_start(&self, mark: Mark, acked_early: bool) {
        let is_fresh = self.world.is_fresh(self.worker, Some(mark.consumer));
        let mut state = self.world.lock();
        let (may_be_cut, deduplicates) = (state.column.is_connection(), state.column.deduplicates);
        let is_cloned = state.consumers.get(&mark.consumer).is_some_and(|life| life.is_cloned);
        let start = Start { acked_early, is_fresh, may_be_cut, deduplicates, is_cloned };
        state.ledger.run_starts(mark, start);
    }

    async fn behave(&self, invocation: &Invocation) -> Outcome {
        let draw = |most: u64| self.world.lock().rng.u64(0..most);
        let success = || Outcome::Success(Payload::json(tasks::quoted(&invocation.id)));
        let retries = invocation.info.retries;
        sleep(Duration::from_millis(draw(30))).await;
        match invocation.task.as_str() {
            "slow" => {
                sleep(Duration::from_millis(500 + draw(25_000))).await;
                success()
            }
            "deaf" => {
                sleep(Duration::from_secs(30)).await;
                success()
            }
            // Ends early when it is asked to.
            "patient" => {
                tokio::select! {
                    biased;
                    _ = invocation.stop.wait_requested() => {}
                    () = sleep(Duration::from_millis(500 + draw(60_000))) => {}
                }
                success()
            }
            "progress" => {
                let meta = Payload::json(&b"{\"current\": 1}"[..]);
                // The backend may be down for long: then the guest is told nothing, and waits.
                match invocation.host.progress("PROGRESS".to_owned(), meta).await {
                    Ok(()) => success(),
                    Err(error) => Outcome::Failed(failure("RuntimeError", &error.to_string())),
                }
            }
            "killer" => self.world.die(self.worker).await,
            "submit" => self.submit(invocation).await,
            "retry" if retries < 2 => {
                retry(Some(Duration::from_millis(draw(4_000))), Some(failure("ValueError", "again")))
            }
            "retry-out" => retry(Some(Duration::ZERO), None),
            "replace" => {
                let signature = Signature::new(tasks::name("ok"));
                Outcome::Replace(Payload::json(signature.encode()))
            }
            "fail" | "chain-fails" | "errback" | "autoretry" => Outcome::Failed(failure("ValueError", "no")),
            "ignore" => Outcome::Ignore,
            "reject" => Outcome::Reject { requeue: false, reason: "not today".to_owned() },
            "requeue" if invocation.info.delivery_count < 2 => {
                Outcome::Reject { requeue: true, reason: "not yet".to_owned() }
            }
            "soft" => {
                let limit = Duration::from_secs(1);
                Outcome::SoftTimeLimit { limit, failure: failure("SoftTimeLimitExceeded", "soft") }
            }
            "hard" => {
                sleep(Duration::from_secs(2)).await;
                Outcome::HardTimeLimit { limit: Duration::from_secs(2), backtrace: None }
            }
            "memory" => Outcome::MemoryLimit { cap: 1, wanted: 2 },
            "too-large" => Outcome::ResultTooLarge { limit: 1, size: 2 },
            "trap" => {
                let message = "call stack exhausted".to_owned();
                Outcome::Trap(Trap { message, backtrace: None, stderr: String::new() })
            }
            "fault" if draw(3) == 0 => Outcome::HostFault("a model fault".to_owned()),
            "poison" => Outcome::HostFault("always".to_owned()),
            "bad-json" => Outcome::Success(Payload::json(&b"{not json"[..])),
            "unstorable" => Outcome::Success(Payload::json(tasks::quoted("unstorable"))),
            _ => success(),
        }
    }

    async fn submit(&self, invocation: &Invocation) -> Outcome {
        let signature = Signature::new(tasks::name("ok"))
            .with_option("task_id", tasks::quoted(&format!("{}-child", invocation.id)));
        loop {
            match invocation.host.submit(vec![Payload::json(signature.encode())]).await {
                Ok(_) => return Outcome::Success(Payload::json(tasks::quoted(&invocation.id))),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

fn retry(delay: Option<Duration>, cause: Option<Failure>) -> Outcome {
    Outcome::Retry(Retry { delay, limit: RetryLimit::Inherit, input: None, cause, options: String::new() })
}

fn failure(exc_type: &str, message: &str) -> Failure {
    Failure {
        exc_type: exc_type.to_owned(),
        exc_module: Some("builtins".to_owned()),
        exc_args: Payload::json(rwork_protocol::json::array_of(&[tasks::quoted(message)])),
        message: message.to_owned(),
        traceback: None,
        retryable: true,
    }
}
