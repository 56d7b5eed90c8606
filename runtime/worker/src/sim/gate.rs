//! The gate that every call to the outside passes: time goes by, and the weather decides what becomes of the call.

use std::time::Duration;

use rwork_broker::{Error, RedactedUrl};
use rwork_model::{Call, Store};
use rwork_protocol::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use super::weather::Weather;
use super::world::{LateCall, World};

/// Longest way of a call that comes late.
const LATE: u64 = 40_000;

/// The line that a call goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A consumer's line, or a publisher's.
    Broker,
    /// A consumer's line for renewals.
    Renewal,
    /// The backend's.
    Backend,
}

/// Permission of the gate for a call.
#[derive(Debug)]
pub(super) enum Passage {
    /// The call does not reach the server. The line is whole.
    Fails(Error),
    /// The call does not reach the server, or only after so long, when nobody waits for it.
    Cut(Option<Duration>),
    /// The call has its effect.
    Through(Through),
}

#[derive(Debug)]
pub(super) struct Through {
    world: World,
    worker: u64,
    act: &'static str,
    /// Its answer is lost.
    pub(super) is_lost: bool,
    dies: bool,
    wait: Duration,
}

impl World {
    /// Before a call's effect.
    pub(super) async fn enter(&self, worker: u64, way: Way, act: &'static str) -> Passage {
        let weather = if self.stormy() { self.lock().weather.clone() } else { Weather::default() };
        let (wait, answer_wait) = (self.wait(&weather), self.wait(&weather));
        if way == Way::Renewal && wait + answer_wait > Duration::from_secs(1) {
            self.lock().trouble(worker);
        }
        sleep(wait).await;
        self.while_stopped(worker).await;
        self.while_paused(way).await;
        if self.hit(weather.crash) {
            self.die(worker).await;
        }
        if way != Way::Backend && self.lock().server.refuses {
            let (why, hint) = ("wrong password".to_owned(), "look at `broker_url`".to_owned());
            return Passage::Fails(Error::Refused { url: RedactedUrl::new("model:"), why, hint });
        }
        if self.is_cut_off(worker, way) {
            return Passage::Cut(None);
        }
        let is_process = !self.lock().column.has_lines();
        if self.hit(weather.cut) && way != Way::Backend && !is_process {
            self.trace(|| format!("worker {worker}: {act} is cut"));
            if way == Way::Renewal {
                self.lock().trouble(worker);
            }
            let late = self.hit(500).then(|| Duration::from_millis(self.lock().rng.u64(0..LATE)));
            return Passage::Cut(late);
        }
        if self.hit(weather.fail_before) {
            self.trace(|| format!("worker {worker}: {act} fails"));
            if way == Way::Renewal {
                self.lock().trouble(worker);
            }
            return Passage::Fails(failure(act, "no effect"));
        }
        let (is_lost, dies) = (self.hit(weather.fail_after), self.hit(weather.crash));
        Passage::Through(Through { world: self.clone(), worker, act, is_lost, dies, wait: answer_wait })
    }

    fn wait(&self, weather: &Weather) -> Duration {
        let slow = self.hit(weather.slow);
        let rng = &mut self.lock().rng;
        Duration::from_millis(if slow { rng.u64(1_000..8_000) } else { rng.u64(0..3) })
    }

    fn hit(&self, thousandths: u32) -> bool {
        thousandths > 0 && self.lock().rng.u32(0..1000) < thousandths
    }

    async fn while_paused(&self, way: Way) {
        let paused_until = {
            let state = self.lock();
            let concerns = way != Way::Backend || state.column.commits_records;
            state.server.paused_until.filter(|_| concerns)
        };
        if let Some(until) = paused_until {
            sleep_until(until).await;
        }
    }

    fn is_cut_off(&self, worker: u64, way: Way) -> bool {
        let state = self.lock();
        let one_server = state.column.commits_records;
        let process = state.processes.get(&worker);
        let ends = match way {
            Way::Backend if !one_server => vec![state.server.backend_down_until],
            _ => vec![state.server.down_until, process.and_then(|process| process.cut_until)],
        };
        ends.into_iter().flatten().any(|until| Instant::now() < until)
    }

    /// Lets a call reach the store later, when nobody waits for it.
    pub(super) fn deliver_late<C: Call>(&self, call: C, after: Duration) {
        let apply = move |store: &mut Store, now: Timestamp| call.apply(store, now).is_ok();
        self.lock().late.push((Instant::now() + after, LateCall(Box::new(apply))));
    }
}

impl Through {
    /// After a call's effect: its caller may die, its answer takes its time. Whether it was lost is known already.
    pub(super) async fn leave(self) {
        if self.dies {
            self.world.die(self.worker).await;
        }
        if self.is_lost {
            let (worker, act) = (self.worker, self.act);
            self.world.trace(|| format!("worker {worker}: the answer to {act} is lost"));
            self.world.lock().ledger.faults += 1;
        }
        sleep(self.wait).await;
        self.world.while_stopped(self.worker).await;
    }
}

/// A failure that leaves the line whole.
pub(super) fn failure(act: &str, why: &str) -> Error {
    Error::Act { act: act.to_owned(), retryable: true, source: why.into() }
}

/// The line is gone.
pub(super) fn unreachable_error() -> Error {
    Error::Unreachable { url: RedactedUrl::new("model:"), source: "cut".into() }
}
