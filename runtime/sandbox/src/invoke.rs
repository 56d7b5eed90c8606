//! One call of a guest, from a free slot to a report: CPU slot → store → instance → export → outcome.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use wasmtime::component::Instance;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::bindings::exports::rwork::task::{cleanup, handler};
use crate::bindings::rwork::task::types;
use crate::control::{Control, Kill};
use crate::convert;
use crate::grants::Grants;
use crate::invocation::{Input, Invocation, Limits};
use crate::mailbox::Reply;
use crate::outcome::{KillReason, Outcome, Report, Usage};
use crate::prepared::{CleanupReason, Description, Prepared};
use crate::services::Services;
use crate::slots::Slot;
use crate::state::{self, Call, Parts, State};
use crate::stop::{Stop, StopReason};
use crate::supervise::{Ended, guarded, supervise};
use crate::verdict;

/// Raised by the SDK when a guest gives up at its soft limit.
const SOFT_LIMIT_EXCEPTION: &str = "SoftTimeLimitExceeded";
/// Raised by the SDK when a guest gives up because the worker goes down.
const SHUTDOWN_EXCEPTION: &str = "WorkerShutdown";
/// Raised by the SDK when a guest gives up because its task was revoked.
const REVOKED_EXCEPTION: &str = "TaskRevokedError";

/// Runs one task. Never fails: whatever happens is an outcome.
///
/// Whoever waits has the report before the instance is torn down, which takes as long as making it did. The slot stays
/// taken until then.
pub(crate) async fn run(mut reply: Reply, mut slot: Slot, prepared: Arc<Prepared>, invocation: Invocation) {
    reply.begin();
    let services = Arc::clone(reply.services());
    let (host, stop) = (Arc::clone(&invocation.host), invocation.stop.clone());
    let (report, store) = run_to_report(&services, &mut slot, &prepared, invocation).await;
    // Results that find no room wait here, so that no more than the slots' worth of them is in memory beyond it.
    if let Some(held) = host.hold_result(report.outcome.result_bytes()) {
        services.mailbox.flush();
        tokio::select! {
            biased;
            () = held => {}
            _ = stop.wait_killed() => {}
        }
    }
    reply.send(report);
    drop(store);
    drop(slot);
}

/// The report, and what is left of the guest.
async fn run_to_report(
    services: &Arc<Services>,
    slot: &mut Slot,
    prepared: &Prepared,
    invocation: Invocation,
) -> (Report, Option<Store<State>>) {
    let Invocation { task, id, input, info, headers, limits, host, stop } = invocation;
    if let Some(kill) = wait_for_cpu(services, slot, &stop).await {
        return (Report { outcome: verdict::of_kill(kill, &limits, None), usage: Usage::default() }, None);
    }
    let control = Arc::new(Control::start(&limits, stop));
    let session = Session {
        parts: Parts {
            call: Call { info, headers, host },
            control: Arc::clone(&control),
            services: Arc::clone(services),
            grants: Some(Arc::clone(&prepared.grants)),
            plugin: Arc::clone(&prepared.plugin),
        },
        prepared,
        limits: &limits,
    };
    let (ended, cpu) = {
        let mut work = pin!(guarded(session.run(&task, &id, &input)));
        supervise(services, slot, &control, limits.kill_grace, work.as_mut()).await
    };
    let wall = control.started.elapsed();
    let (outcome, store) = match ended {
        Ended::Returned((Ok((outcome, size)), store)) => (judge(outcome, size, &limits, &control), store),
        Ended::Returned((Err(outcome), store)) => (outcome, store),
        Ended::Dropped(kill) => (verdict::of_kill(kill, &limits, None), None),
        Ended::Panicked(fault) => (Outcome::HostFault(fault), None),
    };
    let (memory_bytes_peak, log_bytes_dropped) = (control.memory_peak(), control.log_dropped());
    (Report { outcome, usage: Usage { wall, cpu, memory_bytes_peak, log_bytes_dropped } }, store)
}

/// What the worker itself asks of a guest, out of no task's turn.
pub(crate) struct SideCall {
    pub(crate) call: Call,
    pub(crate) limits: Limits,
    /// None: nothing is granted.
    pub(crate) grants: Option<Arc<Grants>>,
}

/// Asks a plugin for its tasks. The error says how the call ended.
pub(crate) async fn describe(
    services: Arc<Services>,
    slot: Slot,
    prepared: Arc<Prepared>,
    side: SideCall,
) -> Result<Description, String> {
    side_call(services, slot, prepared, side, async |session| session.describe().await).await
}

/// Calls a plugin's cleanup hook, if it has one.
pub(crate) async fn clean_up(
    services: Arc<Services>,
    slot: Slot,
    prepared: Arc<Prepared>,
    side: SideCall,
    subject: (String, String, Input),
    reason: CleanupReason,
) -> Result<(), String> {
    let (task, id, input) = subject;
    let call = async |session: Session<'_>| session.clean_up(&task, &id, &input, &reason).await;
    side_call(services, slot, prepared, side, call).await
}

async fn side_call<T>(
    services: Arc<Services>,
    mut slot: Slot,
    prepared: Arc<Prepared>,
    side: SideCall,
    call: impl AsyncFnOnce(Session<'_>) -> Result<T, Outcome>,
) -> Result<T, String> {
    let SideCall { call: parts, limits, grants } = side;
    let stop = Stop::default();
    poll_fn(|cx| slot.poll_cpu(cx)).await;
    let control = Arc::new(Control::start(&limits, stop));
    let session = Session {
        parts: Parts {
            call: parts,
            control: Arc::clone(&control),
            services: Arc::clone(&services),
            grants,
            plugin: Arc::clone(&prepared.plugin),
        },
        prepared: &prepared,
        limits: &limits,
    };
    let (ended, _) = {
        let mut work = pin!(guarded(call(session)));
        supervise(&services, &mut slot, &control, limits.kill_grace, work.as_mut()).await
    };
    match ended {
        Ended::Returned(Ok(value)) => Ok(value),
        Ended::Returned(Err(outcome)) => Err(in_words(&outcome)),
        Ended::Dropped(kill) => Err(in_words(&verdict::of_kill(kill, &limits, None))),
        Ended::Panicked(fault) => Err(fault),
    }
}

/// A first CPU slot, unless the task is killed before it began.
async fn wait_for_cpu(services: &Services, slot: &mut Slot, stop: &Stop) -> Option<Kill> {
    if let Some(reason) = stop.killed() {
        return Some(Kill::Stopped(reason));
    }
    let mut killed = pin!(stop.wait_killed());
    poll_fn(|cx| {
        if slot.poll_cpu(cx).is_ready() {
            return Poll::Ready(None);
        }
        services.mailbox.flush();
        killed.as_mut().poll(cx).map(|reason| Some(Kill::Stopped(reason)))
    })
    .await
}

/// One store and what is called in it.
pub(crate) struct Session<'a> {
    pub(crate) parts: Parts,
    pub(crate) prepared: &'a Prepared,
    pub(crate) limits: &'a Limits,
}

type RunParams<'a> = (types::Invocation<'a>,);
type RunResults = (Result<types::PayloadResult, types::Interruption>,);

impl Session<'_> {
    /// The outcome and its size, and the store, for the caller to tear down.
    pub(crate) async fn run(
        self,
        task: &str,
        id: &str,
        input: &Input,
    ) -> (Result<(Outcome, usize), Outcome>, Option<Store<State>>) {
        let (prepared, limits) = (self.prepared, self.limits);
        let mut store = match self.open() {
            Ok(store) => store,
            Err(error) => return (Err(unopened(error)), None),
        };
        let called = async {
            let instance = prepared.pre.instantiate_async(&mut store).await?;
            let run = instance.get_typed_func::<RunParams<'_>, RunResults>(&mut store, prepared.run)?;
            run.call_async(&mut store, (convert::invocation_out(task, id, input),)).await
        };
        let outcome = match called.await {
            Ok((answer,)) => Ok(convert::outcome_in(answer)),
            Err(error) => Err(verdict::of_error(&error, &mut store, limits)),
        };
        (outcome, Some(store))
    }

    async fn describe(self) -> Result<Description, Outcome> {
        let exports = self.prepared.handler.clone();
        let call = async |store: &mut Store<State>, instance: &Instance| {
            let guest: handler::Guest = exports.load(&mut *store, instance)?;
            guest.call_describe(&mut *store).await
        };
        self.call(call).await.map(convert::description_in)
    }

    async fn clean_up(
        self,
        task: &str,
        id: &str,
        input: &Input,
        reason: &CleanupReason,
    ) -> Result<(), Outcome> {
        let Some(exports) = self.prepared.cleanup.clone() else { return Ok(()) };
        let call = async |store: &mut Store<State>, instance: &Instance| {
            let guest: cleanup::Guest = exports.load(&mut *store, instance)?;
            let subject = convert::invocation_out(task, id, input);
            guest.call_cleanup(&mut *store, subject, convert::reason_out(reason)).await
        };
        self.call(call).await
    }

    async fn call<T>(
        self,
        call: impl AsyncFnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Outcome> {
        let (prepared, limits) = (self.prepared, self.limits);
        let mut store = self.open().map_err(unopened)?;
        let called = match prepared.pre.instantiate_async(&mut store).await {
            Ok(instance) => call(&mut store, &instance).await,
            Err(error) => Err(error),
        };
        called.map_err(|error| verdict::of_error(&error, &mut store, limits))
    }

    fn open(self) -> wasmtime::Result<Store<State>> {
        let mut store = state::store(self.prepared.pre.engine(), self.parts, self.limits)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(at_tick);
        Ok(store)
    }
}

/// Nothing of the guest has run yet.
fn unopened(error: wasmtime::Error) -> Outcome {
    Outcome::HostFault(format!("{error:#}"))
}

/// Looks at a computing guest once a tick: end it, or let others have the thread for a moment.
fn at_tick(store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let control = &store.data().control;
    let now = Instant::now();
    if let Some(kill) = control.verdict(now) {
        return Err(wasmtime::Error::new(kill));
    }
    control.note_time(now);
    control.set_yielded(true);
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

/// What a guest answered is what counts, within two bounds: how large it is, and whether it gave up because it was asked
/// to stop.
fn judge(outcome: Outcome, size: usize, limits: &Limits, control: &Control) -> Outcome {
    if size > limits.result_bytes_max {
        return Outcome::ResultTooLarge { limit: limits.result_bytes_max, size };
    }
    let Outcome::Failed(failure) = outcome else { return outcome };
    match (failure.exc_type.as_str(), control.stop.requested(), limits.soft_time) {
        (SOFT_LIMIT_EXCEPTION, _, Some(limit)) if control.is_soft_passed(Instant::now()) => {
            Outcome::SoftTimeLimit { limit, failure }
        }
        (SHUTDOWN_EXCEPTION, Some(StopReason::Shutdown), _) => Outcome::Killed(KillReason::Shutdown),
        (REVOKED_EXCEPTION, Some(StopReason::Revoked), _) => Outcome::Killed(KillReason::Revoked),
        _ => Outcome::Failed(failure),
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::HardTimeLimit { limit, backtrace } => {
            // One line: where it is innermost says enough.
            let innermost = backtrace.as_deref().and_then(|trace| trace.lines().next()?.split_once(": "));
            let place = innermost.map_or_else(String::new, |(_, frame)| format!(", in `{frame}`"));
            format!("it did not return within {} ms{place}", limit.as_millis())
        }
        Outcome::MemoryLimit { cap, wanted } => {
            format!("it needs {wanted} bytes of memory, of at most {cap}")
        }
        Outcome::Trap(trap) => trap.message.clone(),
        Outcome::HostFault(fault) => fault.clone(),
        Outcome::ResultTooLarge { limit, .. } => format!("its answer is larger than {limit} bytes"),
        _ => "it was stopped".to_owned(),
    }
}
