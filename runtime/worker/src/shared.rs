//! What every step of the pipe may use: the outside world, as arguments.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{Broker, Reason};
use rwork_protocol::{Exception, Record, State, TaskId};
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::WorkerConfig;
use crate::ending::Ending;
use crate::live::Live;
use crate::outage::Backoff;
use crate::summary::Summary;
use crate::watched::Watched;

/// The worker's surroundings. Everything in here is chosen by whoever makes the worker.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) backend: Arc<dyn ResultBackend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: WorkerConfig,
    /// Jitter and nothing else. Locked for one draw at a time.
    pub(crate) rng: Mutex<fastrand::Rng>,
    /// Counts of what was done so far. Written by the committers once per batch.
    pub(crate) summary: Mutex<Summary>,
    /// Settings that may change while it runs. Written by whoever controls the worker.
    pub(crate) live: ArcSwap<Live>,
    /// Bytes held between receipt and commit.
    pub(crate) budget: Arc<Budget>,
    /// Commits that wait for a store to have room. Written by the committers.
    pub(crate) postponed: Watched<usize>,
    /// Runtime of the renewals; `None`: the one of everything else.
    pub(crate) renewals: Option<Handle>,
    /// Deliberate mistakes, for the tests that show that the simulation finds them.
    #[cfg(test)]
    pub(crate) mistake: Option<crate::sim::Mistake>,
}

impl Shared {
    /// True unless so many commits wait for room in a store that what runs next would only add to them.
    pub(crate) fn may_start(&self) -> bool {
        self.postponed.get() < self.config.uncommitted_max()
    }

    /// Resolves when [`Self::may_start`] holds. Cancel safe.
    pub(crate) async fn until_it_may_start(&self) {
        self.postponed.until(|postponed| postponed < self.config.uncommitted_max()).await;
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.backoff, self.draw(fastrand::Rng::fork))
    }

    pub(crate) fn draw<T>(&self, what: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        what(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn count<'a>(&self, endings: impl Iterator<Item = &'a Ending>) {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        endings.for_each(|ending| summary.count(ending));
    }

    pub(crate) fn summary(&self) -> Summary {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id for something new: version 7, ordered by the clock, its random part from our own randomness.
    pub(crate) fn new_id(&self) -> TaskId {
        let millis = u64::try_from(self.clock.now().as_millis()).unwrap_or(0);
        let random = self.draw(|rng| rng.u128(..)).to_le_bytes();
        let mut bytes = [0; 10];
        bytes.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid();
        TaskId::new(id.to_string()).unwrap_or_else(|_| TaskId::generate())
    }

    /// Whether the broker holds this back by itself: it is far enough off, and the broker can.
    pub(crate) fn delays(&self, wait: Duration) -> bool {
        wait > crate::config::WAIT_IN_MEMORY_MAX && self.broker.capabilities().delayed
    }

    /// True if the broker stores records, in the step that ends a delivery.
    pub(crate) fn commits_records(&self) -> bool {
        self.broker.capabilities().commits_records
    }

    /// True if this mistake is made, for one test of the simulation.
    #[cfg(test)]
    pub(crate) fn errs(&self, mistake: crate::sim::Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Whether leases are renewed. Always, but for one test of the simulation.
    pub(crate) fn renews(&self) -> bool {
        #[cfg(test)]
        if self.errs(crate::sim::Mistake::NoRenewal) {
            return false;
        }
        true
    }

    /// A reason for the dead letters, in this worker's name.
    pub(crate) fn reason(&self, kind: &str, detail: impl Into<String>) -> Reason {
        Reason {
            kind: kind.to_owned(),
            detail: detail.into(),
            worker: self.config.node.clone(),
            at: self.clock.now(),
        }
    }

    /// A FAILURE record for a task that no version of ours stands behind.
    pub(crate) fn failure(&self, id: TaskId, exception: &Exception) -> Record {
        Record {
            children: Some(Bytes::from_static(b"[]")),
            date_done: Some(self.clock.now()),
            extended: self.config.result_extended.then(Box::default),
            ..Record::new(id, State::Failure, exception.encode())
        }
    }

    /// A record on its way to the backend.
    pub(crate) fn store(&self, record: Record) -> Store {
        Store { record, expires: self.config.result_expires, reply_to: None, correlation_id: None }
    }
}
