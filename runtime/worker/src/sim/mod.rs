//! The deterministic simulation: the whole pipeline against a model world, one thread, paused time, seeded faults.
//!
//! ```text
//! RWORK_SIM_SEED=123 cargo test -p rwork-worker simulation     one seed, with its story
//! RWORK_SIM_SEEDS=100000 cargo test -p rwork-worker simulation  more seeds
//! ```
//!
//! The store is the model of `rwork-model`, its promises one column of the table drawn for each world. Faults are made around
//! it: calls that fail, whose answer is lost, that are slow or arrive when nobody waits for them; servers that restart, pause,
//! are full, lose data; processes that die at any moment and exactly before or after the effect of any call, are stopped,
//! suspended, cut off, copied; shutdown at any point, plugins swapped mid-run. `check` settles the account of every message;
//! the tests of the test show that it finds what it must.

mod backend;
mod broker;
mod check;
mod column;
mod consumer;
mod executor;
mod faults;
pub(crate) mod fixture;
mod gate;
mod ledger;
pub(crate) mod mistakes;
mod tasks;
mod weather;
mod world;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::backend::ModelBackend;
use self::broker::ModelBroker;
use self::column::Column;
use self::executor::ModelExecutor;
use self::world::{WorkerClock, World};
use crate::{BackoffConfig, Shutdown, Worker, WorkerConfig, WorkerParts};

/// Seeds of one test run.
const SEEDS: u64 = 1_000;
/// Virtual time after which a message that has not ended is lost: far beyond every delay, lease and pause together.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// With everything accounted for, how long more to wait for what a worker has of it that the server has lost.
const AFTER_LOSS: Duration = Duration::from_secs(120);

/// A mistake made on purpose, which the account must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Acks go out before results are stored, where those are kept elsewhere.
    AckBeforeStore,
    /// One worker does not renew.
    NoRenewal,
    /// Tasks start though no renewal is fresh.
    StaleStart,
    /// What may have begun starts without being written down.
    UnwrittenStart,
    /// Follow-ups are published before the commit, not in it.
    PublishOutside,
    /// What never started goes back as if it had.
    CountUnstarted,
    /// A batch without an answer is sent again by another number.
    NewNumber,
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
    world.lock().mistake = mistake;
    let (workers, messages) = {
        let mut state = world.lock();
        (state.rng.u64(1..4), state.rng.usize(5..50))
    };
    let mut background = JoinSet::new();
    background.spawn(world.clone().pass_time());
    background.spawn(world.clone().disturb());
    let producer = background.spawn(produce(world.clone(), messages));
    let mut keepers = JoinSet::new();
    let enough = Shutdown::new();
    for place in 0..workers {
        keepers.spawn(keep_a_worker(world.clone(), place, mistake, enough.clone()));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut open_at = Instant::now();
    loop {
        sleep(Duration::from_millis(500)).await;
        if !producer.is_finished() || !world.lock().ledger.is_closed() {
            open_at = Instant::now();
        }
        // What a server has lost may still be in the hands of a worker.
        let rest = if world.lock().ledger.lost_data { AFTER_LOSS } else { Duration::ZERO };
        let done = open_at.elapsed() > rest;
        // A broken promise that was seen is enough.
        if done || Instant::now() > deadline || !world.lock().ledger.violations.is_empty() {
            break;
        }
    }
    world.lock().is_over = true;
    enough.intake.cancel();
    while let Some(ended) = keepers.join_next().await {
        ended.unwrap();
    }
    run_the_rest(&world, workers, mistake).await;
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

/// One more worker for what the others have sent while they stopped: the follow-ups of tasks that were acked early, which
/// nobody is seen to hold.
async fn run_the_rest(world: &World, place: u64, mistake: Option<Mistake>) {
    let is_done = || {
        let state = world.lock();
        state.ledger.is_closed() || !state.ledger.violations.is_empty()
    };
    let (enough, deadline) = (Shutdown::new(), Instant::now() + PATIENCE);
    if is_done() {
        return;
    }
    let mut keeper = JoinSet::new();
    keeper.spawn(keep_a_worker(world.clone(), place, mistake, enough.clone()));
    while !is_done() && Instant::now() < deadline {
        sleep(Duration::from_millis(500)).await;
    }
    enough.intake.cancel();
    while let Some(ended) = keeper.join_next().await {
        ended.unwrap();
    }
}

async fn produce(world: World, messages: usize) {
    let is_deadly = world.lock().rng.u32(0..6) == 0;
    if is_deadly {
        let now = world.now();
        let killer = tasks::killer(&mut world.lock().rng, now);
        world.accept(killer);
    }
    for number in 0..messages {
        let (publish, pause) = {
            let now = world.now();
            let mut state = world.lock();
            let rng = &mut state.rng;
            let longest = if rng.bool() { 10 } else { 3_000 };
            (tasks::message(rng, number, now), rng.u64(0..longest))
        };
        world.accept(publish);
        sleep(Duration::from_millis(pause)).await;
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
            (parts(&world, worker, &state.column.clone(), &mut state.rng), unrest, graceful, hasty)
        };
        let mut model = Worker::new(parts).unwrap();
        // Somebody must be left to see it.
        model.mistake = mistake.filter(|mistake| *mistake != Mistake::NoRenewal || place == 0);
        let shutdown = Shutdown { intake: enough.intake.child_token(), work: enough.work.child_token() };
        let run = unless_stopped(&world, worker, model.run(shutdown.clone()));
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

/// Goes on with a worker only while its process is not stopped. What it has spawned stops at the gate.
async fn unless_stopped<T>(world: &World, worker: u64, run: impl Future<Output = T>) -> T {
    tokio::pin!(run);
    loop {
        world.while_stopped(worker).await;
        tokio::select! {
            biased;
            () = world.until_stopped(worker) => {}
            ended = &mut run => return ended,
        }
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
                // It waits for nobody from now on, not for room in a full store either.
                world.hurry(worker);
                shutdown.work.cancel();
            }
        } else {
            world.crash(worker);
        }
    }
    std::future::pending().await
}

fn parts(world: &World, worker: u64, column: &Column, rng: &mut fastrand::Rng) -> WorkerParts<ModelExecutor> {
    let slots = rng.usize(1..8);
    let config = WorkerConfig {
        concurrency: slots.min(2),
        max_in_flight: slots,
        prefetch_multiplier: rng.usize(1..5),
        prefetch_max: rng.usize(1..30),
        deliveries_max: column.deliveries_max,
        deduplicate_successful: column.deduplicates,
        settle_batch_max: rng.usize(1..16),
        drain_deadline: rng.bool().then(|| Duration::from_secs(rng.u64(0..20))),
        backoff: BackoffConfig::default(),
        ..WorkerConfig::new(format!("worker{worker}@model"), vec![tasks::queue()], tasks::queue())
    };
    WorkerParts {
        broker: Arc::new(ModelBroker { world: world.clone(), worker }),
        backend: Arc::new(ModelBackend { world: world.clone(), worker }),
        executor: ModelExecutor::new(world.clone(), worker, slots),
        clock: Arc::new(WorkerClock { world: world.clone(), worker }),
        renewals: None,
        rng: rng.fork(),
        config,
    }
}

mod tests;
