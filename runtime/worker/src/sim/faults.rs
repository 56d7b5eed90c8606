//! Faults that come at any moment, and what time does by itself.

use std::time::Duration;

use rwork_broker::Publish;
use rwork_model::{ConsumerId, Token};
use tokio::time::{Instant, sleep};

use super::broker::locked;
use super::ledger::Mark;
use super::weather::{Blow, Loss};
use super::world::{State, World};

/// Earlier states that a server may fall back to, one every other second.
const SNAPSHOTS_MAX: usize = 8;

impl World {
    /// Accepts a message: from now on it is accounted for.
    pub(super) fn accept(&self, publish: Publish) -> u64 {
        let before = self.lock().ledger.accounts.keys().next_back().copied();
        // A producer outside, whose call no fault of ours meets.
        let full = std::mem::take(&mut self.lock().store.is_full);
        let _ = self.apply(&rwork_model::Post(vec![publish]));
        self.lock().store.is_full = full;
        self.lock().ledger.accounts.keys().next_back().copied().or(before).unwrap_or_default()
    }

    /// Effects of time: delays end, late calls arrive, snapshots are written.
    pub(super) async fn pass_time(self) {
        for tick in 0_u64.. {
            sleep(Duration::from_millis(100)).await;
            let (now, instant, at) = (self.now(), Instant::now(), self.elapsed());
            let mut state = self.lock();
            let mut changed = state.store.pass_time(now);
            let (arrived, late) =
                std::mem::take(&mut state.late).into_iter().partition(|(at, _)| *at <= instant);
            state.late = late;
            let arrived: Vec<_> = arrived;
            for (_, call) in arrived {
                changed |= (call.0)(&mut state.store, now);
                state.take_down(at);
            }
            if state.weather.loss == Some(Loss::Some) && tick % 20 == 0 {
                let store = state.store.clone();
                state.snapshots.push_back(store);
                if state.snapshots.len() > SNAPSHOTS_MAX {
                    state.snapshots.pop_front();
                }
            }
            drop(state);
            if changed {
                self.wake();
            }
        }
    }

    /// Every line to the broker breaks; from now on it takes new ones, or refuses them.
    pub(super) fn break_off(&self, refuses: bool) {
        let mut state = self.lock();
        state.server.refuses = refuses;
        state.cut_all();
        state.take_down(self.elapsed());
        drop(state);
        self.wake();
    }

    /// Writes on each message by which delivery it came, for whoever runs it.
    pub(super) fn marked(
        &self,
        consumer: ConsumerId,
        mut deliveries: Vec<rwork_broker::Delivery>,
    ) -> Vec<rwork_broker::Delivery> {
        let state = self.lock();
        for delivery in &mut deliveries {
            let receipt = delivery.receipt;
            let held = state.store.held(consumer).find(|(of, _)| *of == receipt);
            let serial = held.map(|(_, held)| held.serial);
            let serial = serial.or_else(|| state.ledger.serial_of(consumer, receipt)).unwrap_or_default();
            delivery.message.properties.correlation_id = Some(Mark { serial, consumer, receipt }.text());
        }
        deliveries
    }

    /// Swaps plugins and deals blows, while the storm lasts.
    pub(super) async fn disturb(self) {
        while self.stormy() {
            let pause = self.lock().rng.u64(100..8_000);
            sleep(Duration::from_millis(pause)).await;
            let mut state = self.lock();
            state.plugin_version += 1;
            let blows = state.weather.blows.clone();
            let blow = state.rng.choice(blows.iter().copied());
            let length = Duration::from_millis(state.rng.u64(500..40_000));
            let worker = state.some_worker();
            let loses = state.rng.u32(0..8) == 0;
            let loss = if loses && !state.is_over { state.weather.loss.take() } else { None };
            drop(state);
            if let Some(loss) = loss {
                self.lose_data(loss);
            } else if let Some((blow, worker)) = blow.zip(worker) {
                self.deal(blow, worker, length);
            }
        }
        self.lock().store.is_full = false;
    }

    fn deal(&self, blow: Blow, worker: u64, length: Duration) {
        self.trace(|| format!("{blow:?} of {length:?} (worker {worker})"));
        let until = Some(Instant::now() + length);
        let mut state = self.lock();
        state.ledger.faults += 1;
        match blow {
            Blow::Restart => {
                state.server.down_until = until;
                state.cut_all();
            }
            // What waits for the end of an earlier pause does not hear of a later one.
            Blow::Pause => state.server.paused_until = state.server.paused_until.max(until),
            Blow::Full => state.store.is_full = !state.store.is_full,
            Blow::BackendDown => state.server.backend_down_until = until,
            Blow::Stop | Blow::Suspend => {
                state.trouble(worker);
                if let Some(process) = state.processes.get_mut(&worker) {
                    process.stopped_until = until;
                    if blow == Blow::Suspend {
                        process.boot_ahead += length;
                    }
                }
            }
            Blow::CutOff => {
                state.trouble(worker);
                if let Some(process) = state.processes.get_mut(&worker) {
                    process.cut_until = until;
                }
                state.cut(worker);
            }
            Blow::Clone => {
                drop(state);
                return self.clone_process(worker);
            }
        }
        state.take_down(self.elapsed());
        drop(state);
        self.wake();
    }

    /// A copy of a process resumes its consumers, and is never heard of again.
    fn clone_process(&self, worker: u64) {
        let lives: Vec<_> = {
            let mut state = self.lock();
            let of_worker = state.consumers.values_mut().filter(|life| life.worker == worker);
            of_worker.map(|life| (life.is_cloned = true, life.driver.clone()).1).collect()
        };
        for driver in lives {
            let mut copy = locked(&driver).clone();
            let resumed = self.apply(&copy.resume(Token(self.number())));
            self.trace(|| {
                format!("a copy of worker {worker} resumes {:?}: {resumed:?}", copy.line().consumer)
            });
        }
    }

    fn lose_data(&self, loss: Loss) {
        let mut state = self.lock();
        match loss {
            Loss::Some => {
                let Some(earlier) = state.snapshots.pop_front() else { return };
                state.store.roll_back_to(earlier);
            }
            Loss::All => state.store.lose_everything(),
        }
        let State { ledger, store, .. } = &mut *state;
        ledger.lose_data(store);
        ledger.faults += 1;
        state.cut_all();
        state.take_down(self.elapsed());
        drop(state);
        self.trace(|| format!("the server has lost data: {loss:?}"));
        self.wake();
    }
}

impl State {
    fn some_worker(&mut self) -> Option<u64> {
        let living = self.processes.iter().filter(|(_, process)| process.is_alive);
        let living: Vec<_> = living.map(|(worker, _)| *worker).collect();
        self.rng.choice(living)
    }
}
