//! The model world: one clock, one source of chance, one store, one ledger, and everything that faults act on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rwork_broker::Error;
use rwork_model::{Call, ConsumerId, Driver, Event, How, Rules, Store};
use rwork_protocol::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::column::Column;
use super::ledger::Ledger;
use super::weather::Weather;
use super::{Mistake, backend, tasks};
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
    /// Something changed.
    changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: fastrand::Rng,
    pub(super) weather: Weather,
    pub(super) column: Column,
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    /// Goes up with every swap.
    pub(super) plugin_version: u64,
    pub(super) processes: BTreeMap<u64, Process>,
    pub(super) consumers: BTreeMap<ConsumerId, Life>,
    pub(super) server: Server,
    /// Calls that are still on their way, though nobody waits for them.
    pub(super) late: Vec<(Instant, LateCall)>,
    /// Earlier states of the store, the oldest first.
    pub(super) snapshots: VecDeque<Store>,
    pub(super) mistake: Option<Mistake>,
    /// Everything has ended: no more faults.
    pub(super) is_over: bool,
    /// Ids and tokens given.
    numbers: u64,
    trace: Option<Vec<String>>,
}

/// Applies itself to the store; true when it changed something.
pub(super) struct LateCall(pub(super) Box<LateEffect>);

type LateEffect = dyn FnOnce(&mut Store, Timestamp) -> bool + Send;

impl fmt::Debug for LateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LateCall")
    }
}

/// The servers, and the way to them.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Nobody reaches the broker until then.
    pub(super) down_until: Option<Instant>,
    /// The broker answers nobody until then.
    pub(super) paused_until: Option<Instant>,
    /// Nobody reaches the backend until then, where it is another server.
    pub(super) backend_down_until: Option<Instant>,
    /// Goes up whenever all lines break.
    pub(super) epoch: u64,
    /// Wrong password.
    pub(super) refuses: bool,
}

/// One worker's process.
#[derive(Debug)]
pub(super) struct Process {
    crash: Arc<Notify>,
    pub(super) is_alive: bool,
    /// Stopped until then.
    pub(super) stopped_until: Option<Instant>,
    /// By how much its clock that counts suspends is ahead.
    pub(super) boot_ahead: Duration,
    /// Cut off until then.
    pub(super) cut_until: Option<Instant>,
    /// Goes up whenever its own lines break.
    pub(super) epoch: u64,
}

/// One consumer, as the account needs it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) worker: u64,
    pub(super) driver: Arc<Mutex<Driver>>,
    /// When the last renewal that was answered had been asked for, by its process's clock that counts suspends.
    pub(super) renewed: Duration,
    /// Since its last renewal something has kept it, and it alone, from renewing.
    pub(super) is_troubled: bool,
    /// A copy of its process took its place.
    pub(super) is_cloned: bool,
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let column = Column::draw(&mut rng);
        let weather = Weather::draw(&mut rng, &column);
        Self::of(rng, column, weather, traced)
    }

    fn of(rng: fastrand::Rng, column: Column, weather: Weather, traced: bool) -> Self {
        let rules = Rules {
            ownership: column.ownership,
            commits_records: column.commits_records,
            closed_queues: BTreeSet::from([tasks::closed_queue()]),
            unstorable: backend::is_unstorable,
        };
        let state = State {
            ledger: Ledger::new(column.deliveries_max),
            store: Store::new(rules),
            plugin_version: 1,
            processes: BTreeMap::new(),
            consumers: BTreeMap::new(),
            server: Server::default(),
            late: Vec::new(),
            snapshots: VecDeque::new(),
            mistake: None,
            is_over: false,
            numbers: 0,
            trace: traced.then(Vec::new),
            weather,
            column,
            rng,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), began: Instant::now(), changed: Notify::new() }))
    }

    /// A world in which everything works, for tests of single steps.
    pub(super) fn calm() -> Self {
        Self::of(fastrand::Rng::with_seed(1), Column::elsewhere(), Weather::default(), false)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stormy(&self) -> bool {
        self.0.began.elapsed() < STORM && !self.lock().is_over
    }

    pub(super) fn wake(&self) {
        self.0.changed.notify_waiters();
    }

    pub(super) fn changed(&self) -> &Notify {
        &self.0.changed
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Wall time.
    pub(super) fn now(&self) -> Timestamp {
        START.plus(self.elapsed())
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

    /// A new id or token.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.lock();
        state.numbers += 1;
        state.numbers
    }

    /// Applies a call to the store, and takes down what it has changed.
    pub(super) fn apply<C: Call>(&self, call: &C) -> Result<C::Answer, Error> {
        let now = self.now();
        let (answer, changed) = {
            let mut state = self.lock();
            let answer = call.apply(&mut state.store, now);
            (answer, state.take_down(self.elapsed()))
        };
        // A look that found nothing wakes nobody, least of all itself.
        if changed {
            self.wake();
        }
        answer
    }

    /// A worker begins to live; the notification ends it.
    pub(super) fn born(&self, worker: u64) -> Arc<Notify> {
        let crash = Arc::new(Notify::new());
        let process = Process {
            crash: Arc::clone(&crash),
            is_alive: true,
            stopped_until: None,
            boot_ahead: Duration::ZERO,
            cut_until: None,
            epoch: 0,
        };
        self.lock().processes.insert(worker, process);
        crash
    }

    /// A worker ends, at once and without a word.
    pub(super) fn crash(&self, worker: u64) {
        self.trace(|| format!("worker {worker} CRASHES"));
        if let Some(process) = self.lock().processes.get(&worker) {
            process.crash.notify_one();
        }
    }

    /// Crashes the caller, which never comes back from this.
    pub(super) async fn die(&self, worker: u64) -> ! {
        self.crash(worker);
        std::future::pending().await
    }

    /// A worker is told a second time to stop.
    pub(super) fn hurry(&self, worker: u64) {
        let mut state = self.lock();
        if !state.is_over {
            state.ledger.gone.insert(worker);
        }
    }

    /// A worker is gone. Unless it died, it should have left nothing.
    pub(super) fn bury(&self, worker: u64, died: bool) {
        let mut state = self.lock();
        state.ledger.faults += u64::from(died);
        state.ledger.worker_is_gone(worker);
        // Or stopped in a storm, where it waits for no answer for ever.
        if died || !state.is_over {
            state.ledger.gone.insert(worker);
        }
        if let Some(process) = state.processes.get_mut(&worker) {
            process.is_alive = false;
        }
        let of_worker = |id: &ConsumerId| state.consumers.get(id).is_some_and(|life| life.worker == worker);
        let left: Vec<_> = state.store.living().filter(of_worker).collect();
        let holds = |consumer: &ConsumerId| state.store.held(*consumer).next().is_some();
        if !died && left.iter().any(holds) && state.weather.is_calm() {
            state.ledger.violation(format!("worker {worker} went and closed nothing"));
        }
        if state.column.is_connection() {
            left.into_iter().for_each(|consumer| state.store.drop_connection(consumer));
        }
        state.take_down(self.elapsed());
        drop(state);
        self.wake();
    }

    pub(super) fn is_alive(&self, worker: u64) -> bool {
        self.lock().processes.get(&worker).is_some_and(|process| process.is_alive)
    }

    /// Waits while this worker's process is stopped.
    pub(super) async fn while_stopped(&self, worker: u64) {
        loop {
            let until = self.lock().processes.get(&worker).and_then(|process| process.stopped_until);
            match until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// Resolves when this worker's process is stopped.
    pub(super) async fn until_stopped(&self, worker: u64) {
        loop {
            let changed = self.changed().notified();
            let until = self.lock().processes.get(&worker).and_then(|process| process.stopped_until);
            if until.is_some_and(|until| until > Instant::now()) {
                return;
            }
            changed.await;
        }
    }

    /// Its clock that counts suspends.
    pub(super) fn boot(&self, worker: u64) -> Duration {
        let ahead = self.lock().processes.get(&worker).map_or(Duration::ZERO, |process| process.boot_ahead);
        self.elapsed() + ahead
    }

    /// True if a renewal of this worker, asked for within the last lease, was answered.
    pub(super) fn is_fresh(&self, worker: u64, consumer: Option<ConsumerId>) -> bool {
        let boot = self.boot(worker);
        let state = self.lock();
        let Some(lease) = state.column.ownership.lease() else { return true };
        let mut lives = state
            .consumers
            .iter()
            .filter(|(id, life)| life.worker == worker && consumer.is_none_or(|consumer| consumer == **id));
        lives.any(|(_, life)| boot.saturating_sub(life.renewed) <= lease)
    }

    /// The lines that a worker has now.
    pub(super) fn epoch(&self, worker: u64) -> (u64, u64) {
        let state = self.lock();
        (state.server.epoch, state.processes.get(&worker).map_or(0, |process| process.epoch))
    }
}

impl State {
    /// Takes down what the store says has changed; true when something has.
    pub(super) fn take_down(&mut self, at: Duration) -> bool {
        let events = self.store.take_events();
        let changed = !events.is_empty();
        for event in events {
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{:>9.3}     {event:?}", at.as_secs_f64()));
            }
            if let Event::Ended { consumer, how: How::Reaped, .. } = &event {
                self.check_reaping(*consumer);
            }
            let worker = |consumer: &ConsumerId| self.consumers.get(consumer).map_or(0, |life| life.worker);
            self.ledger.note(event, &self.store, worker);
        }
        changed
    }

    /// Nobody is dead whom nothing kept from renewing, himself alone.
    fn check_reaping(&mut self, consumer: ConsumerId) {
        let Some(life) = self.consumers.get(&consumer) else { return };
        let is_alive = self.processes.get(&life.worker).is_some_and(|process| process.is_alive);
        let may_be_troubled = self.column.ownership.lease().is_some();
        self.ledger.faults += 1;
        if is_alive && !(may_be_troubled && (life.is_troubled || life.is_cloned)) {
            let worker = life.worker;
            self.ledger
                .violation(format!("worker {worker} was found dead, and nothing kept it from renewing"));
        }
    }

    /// Something keeps this worker, and it alone, from renewing.
    pub(super) fn trouble(&mut self, worker: u64) {
        let lives = self.consumers.values_mut().filter(|life| life.worker == worker);
        lives.for_each(|life| life.is_troubled = true);
    }

    /// A consumer's process has no use for it any more.
    pub(super) fn abandon(&mut self, consumer: ConsumerId) {
        self.consumers.get_mut(&consumer).into_iter().for_each(|life| life.is_troubled = true);
    }

    /// A consumer has shown a sign of life; its process may be stopped all the same, with the call on its way.
    pub(super) fn relieve(&mut self, consumer: ConsumerId) {
        let now = Instant::now();
        let Some(life) = self.consumers.get_mut(&consumer) else { return };
        let lasts = |until: Option<Instant>| until.is_some_and(|until| until > now);
        let process = self.processes.get(&life.worker);
        life.is_troubled =
            process.is_some_and(|process| lasts(process.stopped_until) || lasts(process.cut_until));
    }

    /// Every line of one worker breaks.
    pub(super) fn cut(&mut self, worker: u64) {
        if let Some(process) = self.processes.get_mut(&worker) {
            process.epoch += 1;
        }
        if self.column.is_connection() {
            let of_worker =
                |id: &ConsumerId| self.consumers.get(id).is_some_and(|life| life.worker == worker);
            let all: Vec<_> = self.store.living().filter(of_worker).collect();
            all.into_iter().for_each(|consumer| self.store.drop_connection(consumer));
        }
    }

    /// Every line to the broker breaks.
    pub(super) fn cut_all(&mut self) {
        self.server.epoch += 1;
        if self.column.is_connection() {
            let all: Vec<_> = self.store.living().collect();
            all.into_iter().for_each(|consumer| self.store.drop_connection(consumer));
        }
    }
}

/// The clocks of one worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerClock {
    pub(super) world: World,
    pub(super) worker: u64,
}

impl Clock for WorkerClock {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn boot(&self) -> Duration {
        self.world.boot(self.worker)
    }
}
