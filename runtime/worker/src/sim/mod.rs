//! The deterministic simulation: the whole pipeline against a model world, one thread, paused time, seeded faults.
//!
//! ```text
//! RWORK_SIM_SEED=123 cargo test -p rwork-worker simulation     one seed, with its story
//! RWORK_SIM_SEEDS=100000 cargo test -p rwork-worker simulation  more seeds
//! ```
//!
//! Faults: calls that fail, calls whose answer is lost, slow calls, an unreachable backend, cut connections, workers that
//! die at any moment and exactly before or after the effect of any call, shutdown at any point, plugins swapped mid-run.
//! `check` settles the account of every message; the tests of the test show that it finds what it must.

mod backend;
mod broker;
mod check;
mod executor;
pub(crate) mod fixture;
mod ledger;
mod tasks;
mod world;

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Delivery, Publish, Route};
use rwork_protocol::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::backend::ModelBackend;
use self::broker::ModelBroker;
use self::executor::ModelExecutor;
use self::world::World;
use crate::commit::{Commit, Held};
use crate::ending::{AckPolicy, Ending};
use crate::{BackoffConfig, Shutdown, Worker, WorkerConfig, WorkerParts};

/// Seeds of one test run.
const SEEDS: u64 = 1_000;
/// Virtual time after which a message that has not ended is lost: far beyond every delay, lease and pause together.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// A mistake made on purpose, which the account must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Acks go out before results are stored.
    AckBeforeStore,
    /// Leases are not renewed.
    NoRenewal,
    /// What is not due yet is published as a copy, and then acked.
    DelayByCopy,
}

/// [`Mistake::DelayByCopy`].
pub(crate) fn delay_by_copy(held: Held, commit: Commit, not_before: Option<Timestamp>) -> Commit {
    let Delivery { queue, message, .. } = &held.delivery;
    let copy = Publish { route: Route::queue(queue), message: message.clone(), not_before };
    let commit = Commit { follow_ups: vec![copy], ..commit };
    commit.ended(Some(held), Ending::Replaced, AckPolicy::default())
}

/// What one seed came to.
#[derive(Debug)]
struct Verdict {
    wrong: Vec<String>,
    trace: Vec<String>,
    messages: usize,
    runs: usize,
    faults: u64,
}

fn simulate(seed: u64, mistake: Option<Mistake>, traced: bool) -> Verdict {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(seed, mistake, traced))
}

async fn live(seed: u64, mistake: Option<Mistake>, traced: bool) -> Verdict {
    let world = World::new(seed, traced);
    let (workers, messages) = {
        let mut state = world.lock();
        (state.rng.u64(1..4), state.rng.usize(5..50))
    };
    let mut background = JoinSet::new();
    background.spawn(world.clone().pass_time());
    background.spawn(disturb(world.clone()));
    let producer = background.spawn(produce(world.clone(), messages));
    let mut keepers = JoinSet::new();
    let enough = Shutdown::new();
    for place in 0..workers {
        keepers.spawn(keep_a_worker(world.clone(), place, mistake, enough.clone()));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        sleep(Duration::from_millis(500)).await;
        let done = producer.is_finished() && world.lock().ledger.is_closed();
        // A broken promise that was seen is enough.
        if done || Instant::now() > deadline || !world.lock().ledger.violations.is_empty() {
            break;
        }
    }
    enough.intake.cancel();
    while let Some(ended) = keepers.join_next().await {
        ended.unwrap();
    }
    let trace = world.take_trace();
    let state = world.lock();
    let runs = state.ledger.accounts.values().flat_map(|account| &account.deliveries);
    Verdict {
        wrong: check::check(&state),
        trace,
        messages: state.ledger.accounts.len(),
        runs: runs.filter(|handed| handed.run != ledger::Run::No).count(),
        faults: state.ledger.faults,
    }
}

async fn produce(world: World, messages: usize) {
    for number in 0..messages {
        let (publish, pause) = {
            let now = crate::Clock::now(&world);
            let mut state = world.lock();
            let rng = &mut state.rng;
            let longest = if rng.bool() { 10 } else { 3_000 };
            (tasks::message(rng, number, now), rng.u64(0..longest))
        };
        world.accept(publish);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Swaps plugins and takes the backend away, now and then.
async fn disturb(world: World) {
    while world.stormy() {
        let (pause, outage, stormy) = {
            let mut state = world.lock();
            let stormy = state.weather.fail_before > 0;
            (state.rng.u64(100..8_000), state.rng.u64(0..8), stormy)
        };
        sleep(Duration::from_millis(pause)).await;
        let mut state = world.lock();
        state.plugin_version += 1;
        if outage == 0 && stormy {
            let length = Duration::from_millis(state.rng.u64(1_000..30_000));
            state.records.down_until = Some(Instant::now() + length);
        }
    }
}

/// Keeps one worker alive: starts it, lets it die or stop, starts the next.
async fn keep_a_worker(world: World, place: u64, mistake: Option<Mistake>, enough: Shutdown) {
    for life in 0.. {
        let worker = place * 1_000 + life;
        let crash = world.born(worker);
        let (parts, unrest, graceful, hasty) = {
            let stormy = world.stormy();
            let mut state = world.lock();
            let unrest = match state.weather.unrest_seconds {
                mean if mean > 0 && stormy => Some(Duration::from_millis(state.rng.u64(0..mean * 2_000))),
                _ => None,
            };
            let (graceful, hasty) = (state.rng.bool(), state.rng.bool());
            (parts(&world, worker, &mut state.rng), unrest, graceful, hasty)
        };
        let mut model = Worker::new(parts).unwrap();
        model.mistake = mistake;
        let shutdown = Shutdown { intake: enough.intake.child_token(), work: enough.work.child_token() };
        let run = model.run(shutdown.clone());
        let crashed = tokio::select! {
            biased;
            () = crash.notified() => true,
            ended = run => { ended.unwrap(); false }
            () = stop_at(&world, worker, unrest, graceful, hasty, shutdown) => unreachable!("it waits for ever"),
        };
        world.bury(worker, crashed);
        world.trace(|| format!("worker {worker} is gone"));
        if enough.intake.is_cancelled() {
            return;
        }
        let pause = world.lock().rng.u64(0..4_000);
        sleep(Duration::from_millis(pause)).await;
    }
}

/// At some moment the worker dies, or is told to stop once or twice.
async fn stop_at(
    world: &World,
    worker: u64,
    unrest: Option<Duration>,
    graceful: bool,
    hasty: bool,
    shutdown: Shutdown,
) {
    if let Some(unrest) = unrest {
        sleep(unrest).await;
        if graceful {
            world.trace(|| format!("worker {worker} is told to stop"));
            shutdown.intake.cancel();
            if hasty {
                sleep(Duration::from_secs(3)).await;
                shutdown.work.cancel();
            }
        } else {
            world.crash(worker);
        }
    }
    std::future::pending().await
}

fn parts(world: &World, worker: u64, rng: &mut fastrand::Rng) -> WorkerParts<ModelExecutor> {
    let slots = rng.usize(1..8);
    let config = WorkerConfig {
        concurrency: slots.min(2),
        max_in_flight: slots,
        prefetch_multiplier: rng.usize(1..5),
        prefetch_max: rng.usize(1..30),
        settle_batch_max: rng.usize(1..16),
        drain_deadline: rng.bool().then(|| Duration::from_secs(rng.u64(0..20))),
        backoff: BackoffConfig::default(),
        ..WorkerConfig::new(format!("worker{worker}@model"), vec![tasks::queue()], tasks::queue())
    };
    WorkerParts {
        broker: Arc::new(ModelBroker { world: world.clone(), worker }),
        backend: Arc::new(ModelBackend { world: world.clone(), worker }),
        executor: ModelExecutor::new(world.clone(), slots),
        clock: Arc::new(world.clone()),
        rng: rng.fork(),
        config,
    }
}

mod tests;
