//! The consumer trait on RabbitMQ: a channel for each queue, one table of what is held, acks without an answer.
//!
//! A delivery costs no round trip: the server sends as many as were ever asked for, and what is settled is written at once.
//! The consumer ends with its connection; a channel that the server closes costs what was held of one queue.

mod arrive;
mod basket;
mod bring;
mod credit;
mod errands;
mod keep;
mod lane;
mod leave;
mod meet;
mod pump;
mod shelter;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rwork_broker::{Batch, Committed, Consume, Consumer, Delivery, Error, Receipt, Resumed, Room};
use rwork_protocol::service::Hinted;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::broker::locked;
use crate::commit::{self, Progress};
use crate::declare::Kind;
use crate::error::chain;
use crate::handle::Inner;
use crate::link::Wire;
pub(crate) use arrive::fingerprint;
use credit::{Account, Budget};
pub(crate) use lane::{Ends, Lane};
use pump::Pump;
use shelter::Shelters;
pub(crate) use table::{Held, Place, Stage, Table};

/// A consumer. Dropped without `close` it is dead, and the server gives what it held to others.
#[derive(Debug)]
pub(crate) struct AmqpConsumer {
    shared: Arc<Shared>,
    /// Whoever receives. Held over waiting: one caller at a time.
    pump: tokio::sync::Mutex<Pump>,
    /// The batch under way. Held over waiting: one caller at a time.
    progress: tokio::sync::Mutex<Progress>,
}

/// What its tasks and whoever counts need, too.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inner: Arc<Inner>,
    pub(crate) name: String,
    /// One per incarnation, for the names of its own queues.
    id: Uuid,
    /// The connection: nothing outlives it.
    wire: Arc<Wire>,
    pub(crate) lanes: Vec<Lane>,
    /// What the server may see unacked at most, wherever it is.
    unsettled_max: usize,
    /// Held while credit is given out, or kept for what goes to the shelter.
    granting: tokio::sync::Mutex<()>,
    /// Held for some moves.
    pub(crate) table: Mutex<Table>,
    shelters: Shelters,
    /// Held for one move.
    uncounted: Mutex<bring::Uncounted>,
    /// Rung when there is something new that is not on a channel.
    pub(crate) bell: Notify,
    /// Takes nothing any more.
    closing: CancellationToken,
    /// Holds nothing any more.
    gone: CancellationToken,
    closed: AtomicBool,
    /// Why it can't go on though its connection may. Held for one move.
    failure: Mutex<Option<Hinted>>,
    /// Messages on their way elsewhere. Each ends with its answer or the connection.
    errands: TaskTracker,
    /// All of them end with `closing` or `gone`.
    tasks: TaskTracker,
}

impl AmqpConsumer {
    pub(crate) async fn enter(inner: &Arc<Inner>, options: Consume) -> Result<Self, Error> {
        let wire = inner.consuming.wire().await?;
        let mut queues = options.queues;
        let mut seen = std::collections::HashSet::new();
        queues.retain(|queue| seen.insert(queue.clone()));
        // One of each queue at least, or the server would never send anything of some.
        let unsettled_max = options.unsettled_max.max(queues.len()).max(1);
        let mut lanes = Vec::with_capacity(queues.len());
        for queue in queues {
            let kind = inner.broker.declare(inner, &inner.consuming, &queue).await?;
            lanes.push(Lane::new(queue, kind, wire.channel().await?));
        }
        let shared = Arc::new(Shared {
            inner: Arc::clone(inner),
            name: options.name,
            id: Uuid::new_v4(),
            wire,
            shelters: Shelters::new(lanes.len()),
            lanes,
            uncounted: Mutex::default(),
            unsettled_max,
            granting: tokio::sync::Mutex::default(),
            table: Mutex::default(),
            bell: Notify::new(),
            closing: CancellationToken::new(),
            gone: CancellationToken::new(),
            closed: AtomicBool::new(false),
            failure: Mutex::default(),
            errands: TaskTracker::new(),
            tasks: TaskTracker::new(),
        });
        let consumer =
            Self { pump: tokio::sync::Mutex::default(), progress: tokio::sync::Mutex::default(), shared };
        consumer.shared.await_delayed().await?;
        inner.broker.enter(&consumer.shared);
        shelter::watch(&consumer.shared);
        Ok(consumer)
    }
}

impl Shared {
    /// Celery's workers make delayed delivery ready as soon as one of their queues is a quorum queue: its clients then rely
    /// on it. That we may not is no reason not to work.
    async fn await_delayed(&self) -> Result<(), Error> {
        let inner = &self.inner;
        if self.lanes.iter().all(|lane| lane.locked().kind == Kind::Classic) {
            return Ok(());
        }
        for lane in &self.lanes {
            match inner.broker.bound_to_delayed(inner, &inner.consuming, &lane.queue).await {
                Ok(()) => {}
                Err(error @ (Error::Refused { .. } | Error::Act { .. })) => {
                    tracing::warn!(queue = %lane.queue, %error, "no delayed delivery to this queue");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether it can go on.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(self.gone());
        }
        if let Some(failure) = locked(&self.failure).clone() {
            return Err(self.unreachable(failure));
        }
        if self.wire.is_broken() {
            let what = "the connection was lost".to_owned();
            return Err(self.unreachable(Hinted { what, hint: String::new() }));
        }
        Ok(())
    }

    fn unreachable(&self, what: Hinted) -> Error {
        Error::Unreachable { url: self.wire.url.clone(), source: Box::new(what) }
    }

    /// It can't go on: whoever receives is told.
    fn fail(&self, error: &Error) {
        let hint = error.hint().unwrap_or_default().to_owned();
        *locked(&self.failure) = Some(Hinted { what: chain(error), hint });
        self.bell.notify_one();
    }

    fn gone(&self) -> Error {
        Error::Closed { name: self.name.clone() }
    }

    /// Of each queue, what the server may send.
    fn accounts(&self) -> Vec<Account> {
        self.lanes.iter().map(|lane| lane.locked().account()).collect()
    }

    fn budget(&self) -> Budget {
        let elsewhere = self.shelters.held() + self.shelters.kept();
        Budget { limit: self.unsettled_max, elsewhere, may_shed: true }
    }

    pub(crate) fn lane(&self, place: usize) -> Option<&Lane> {
        self.lanes.get(place)
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    /// A lost connection is the end: the server gave to others what was held over it.
    async fn resume(&self) -> Result<Resumed, Error> {
        Ok(match self.shared.check() {
            Ok(()) => Resumed::Stands { fresh: Vec::new(), gone: Vec::new() },
            Err(_) => Resumed::Dead,
        })
    }

    async fn receive(&self, room: Room) -> Result<Vec<Delivery>, Error> {
        let mut pump = self.pump.lock().await;
        loop {
            self.shared.check()?;
            pump.meet_needs(&self.shared, room.messages).await?;
            let ready = pump.take(&self.shared, room);
            if !ready.is_empty() {
                return Ok(ready);
            }
            pump.wait(&self.shared).await;
        }
    }

    async fn commit(&self, batch: &Batch) -> Result<Vec<Committed>, Error> {
        let mut progress = self.progress.lock().await;
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(self.shared.gone());
        }
        // Not for a lost connection: what needs no delivery is published all the same.
        commit::commit(&self.shared, &mut progress, batch).await
    }

    async fn renew(&self) -> Result<bool, Error> {
        Ok(self.shared.check().is_ok())
    }

    async fn close(&self, started: &[Receipt]) -> Result<(), Error> {
        if self.shared.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.shared.closing.cancel();
        // Waits for whoever receives to go: a call under way ends then.
        let mut pump = self.pump.lock().await;
        pump.finish().await;
        let left = leave::leave(&self.shared, started).await;
        if left.is_err() {
            leave::abandon(&self.shared);
        }
        left
    }
}

impl Drop for AmqpConsumer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.closing.cancel();
        // Unless it was closed to the end.
        if !self.shared.gone.is_cancelled() {
            leave::abandon(&self.shared);
        }
    }
}
