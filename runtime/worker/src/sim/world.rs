//! The model world: one clock, one source of chance, one ledger, and the gate that every call to the outside passes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rwork_protocol::Timestamp;
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::backend::Records;
use super::broker::Queue;
use super::ledger::Ledger;
use crate::clock::Clock;

/// 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// Faults end then, so that whatever can still come to an end must.
const STORM: Duration = Duration::from_secs(90);

/// Shared by everything in one simulated run. Single-threaded: the lock is never contended.
#[derive(Clone, Debug)]
pub(super) struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    began: Instant,
    /// Something became deliverable.
    pub(super) ready: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: fastrand::Rng,
    pub(super) weather: Weather,
    pub(super) queue: Queue,
    pub(super) records: Records,
    pub(super) ledger: Ledger,
    /// Goes up with every swap.
    pub(super) plugin_version: u64,
    /// How to crash each living worker.
    crash: BTreeMap<u64, Arc<Notify>>,
    trace: Option<Vec<String>>,
}

/// How bad it gets, per call and in thousandths, while the storm lasts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// A call fails without effect.
    pub(super) fail_before: u32,
    /// A call has its effect, and the answer is lost.
    pub(super) fail_after: u32,
    /// The worker dies before or after a call's effect.
    pub(super) crash: u32,
    /// A call takes seconds.
    pub(super) slow: u32,
    /// The consumer's connection breaks.
    pub(super) cut: u32,
    /// Worker deaths, shutdowns and plugin swaps at any moment: mean seconds between two; 0: none.
    pub(super) unrest_seconds: u64,
}

impl Weather {
    /// One run in eight is calm, so that what needs no fault is seen without any.
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Self {
        if rng.u32(0..8) == 0 {
            return Self { unrest_seconds: rng.u64(0..20), ..Self::default() };
        }
        let mut some = |most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let (fail_before, fail_after, crash) = (some(80), some(60), some(25));
        let (slow, cut) = (some(40), some(20));
        Self { fail_before, fail_after, crash, slow, cut, unrest_seconds: rng.u64(0..15) }
    }
}

impl Weather {
    /// Whether every call does what it is asked to.
    pub(super) fn is_calm(self) -> bool {
        self.fail_before + self.fail_after + self.slow + self.cut == 0
    }
}

/// What the gate lets happen to one call.
#[derive(Debug)]
pub(super) struct Passage {
    world: World,
    worker: u64,
    crash_after: bool,
    fail_after: bool,
    act: &'static str,
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let weather = Weather::draw(&mut rng);
        let state = State {
            queue: Queue::new(&mut rng),
            records: Records::default(),
            ledger: Ledger::default(),
            plugin_version: 1,
            crash: BTreeMap::new(),
            trace: traced.then(Vec::new),
            weather,
            rng,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), began: Instant::now(), ready: Notify::new() }))
    }

    /// A world in which everything works, for tests of single steps.
    pub(super) fn calm() -> Self {
        let world = Self::new(1, false);
        {
            let mut state = world.lock();
            state.weather = Weather::default();
            state.queue.capabilities.delayed = true;
        }
        world
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stormy(&self) -> bool {
        self.0.began.elapsed() < STORM
    }

    pub(super) fn wake(&self) {
        self.0.ready.notify_waiters();
    }

    pub(super) fn ready(&self) -> &Notify {
        &self.0.ready
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// A line of the story, told when a failing seed is run by itself.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        let at = self.elapsed();
        let mut state = self.lock();
        if let Some(trace) = &mut state.trace {
            trace.push(format!("{:>9.3} {}", at.as_secs_f64(), line()));
        }
    }

    pub(super) fn take_trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }

    /// A worker begins to live; the notification ends it.
    pub(super) fn born(&self, worker: u64) -> Arc<Notify> {
        let crash = Arc::new(Notify::new());
        self.lock().crash.insert(worker, Arc::clone(&crash));
        crash
    }

    /// A worker ends, at once and without a word.
    pub(super) fn crash(&self, worker: u64) {
        self.trace(|| format!("worker {worker} CRASHES"));
        if let Some(crash) = self.lock().crash.remove(&worker) {
            crash.notify_one();
        }
    }

    /// Before a call's effect: time passes, the call may fail, its caller may die.
    pub(super) async fn enter(&self, worker: u64, act: &'static str) -> Result<Passage, Error> {
        let (wait, crash_before, fail_before, passage) = {
            let stormy = self.stormy();
            let mut state = self.lock();
            let weather = if stormy { state.weather } else { Weather::default() };
            let rng = &mut state.rng;
            let mut hit = |thousandths: u32| thousandths > 0 && rng.u32(0..1000) < thousandths;
            let slow = hit(weather.slow);
            let (crash_before, crash_after) = (hit(weather.crash), hit(weather.crash));
            let (fail_before, fail_after) = (hit(weather.fail_before), hit(weather.fail_after));
            let wait = if slow { rng.u64(1_000..8_000) } else { rng.u64(0..4) };
            let passage = Passage { world: self.clone(), worker, crash_after, fail_after, act };
            (Duration::from_millis(wait), crash_before, fail_before, passage)
        };
        sleep(wait).await;
        if crash_before {
            self.die(worker).await;
        }
        if fail_before {
            self.trace(|| format!("worker {worker}: {act} fails"));
            return Err(failure(act, "no effect"));
        }
        Ok(passage)
    }

    /// Crashes the caller, which never comes back from this.
    async fn die(&self, worker: u64) -> ! {
        self.crash(worker);
        std::future::pending().await
    }
}

impl Passage {
    /// After a call's effect: its answer may be lost, its caller may die.
    pub(super) async fn leave(self) -> Result<(), Error> {
        if self.crash_after {
            self.world.die(self.worker).await;
        }
        if self.fail_after {
            self.world.trace(|| format!("worker {}: the answer to {} is lost", self.worker, self.act));
            return Err(failure(self.act, "the answer was lost"));
        }
        Ok(())
    }
}

fn failure(act: &str, why: &str) -> Error {
    Error::Act { act: act.to_owned(), retryable: true, source: why.into() }
}

/// The connection is gone.
pub(super) fn unreachable_error() -> Error {
    Error::Unreachable { url: RedactedUrl::new("model:"), source: "cut".into() }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        START.plus(self.elapsed())
    }
}
