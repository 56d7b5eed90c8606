//! The consumer trait on Redis: one lease, one connection to take by, one table of what is held.

mod calls;
mod pump;
mod table;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use rwork_broker::{Consume, Consumer, Delivery, Disposition, Error, Receipt, Settled, Settlement};
use rwork_protocol::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::locked;
use crate::care::Care;
use crate::handle::Inner;
use crate::lease::{self, Cursor};
use crate::link::Wire;
use crate::settle::{Act, Ended, Parking, settle};
use crate::take::Sources;
use crate::{dead, envelope};
use pump::Pump;
pub(crate) use table::{Held, Table};

/// Messages given back by one call when a consumer ends.
const RELEASE_MAX: usize = 500;

/// A consumer. Dropped without `close` it is dead, and the next one of this handle, or any that sees its lease run out,
/// gives back what it held.
#[derive(Debug)]
pub(crate) struct RedisConsumer {
    shared: Arc<Shared>,
    /// Whoever receives. Held over waiting: one caller at a time.
    pump: tokio::sync::Mutex<Pump>,
    /// Where the next renewal goes on. Held for one move.
    cursor: Mutex<Cursor>,
    /// Of what others left behind.
    care: Care,
}

/// What an act under way needs, too.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inner: Arc<Inner>,
    /// One per incarnation, so that nothing of an earlier one is ever mistaken for ours.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sources: Sources,
    pub(crate) unsettled_max: usize,
    /// Takes, and is told when something comes.
    pub(crate) wire: Wire,
    /// The server tells; otherwise we must ask.
    pub(crate) is_told: bool,
    /// Waits at a list when there is nothing.
    pub(crate) may_wait: bool,
    /// Rung by the server's word.
    pub(crate) bell: Arc<Notify>,
    /// Held for some moves.
    pub(crate) table: Mutex<Table>,
    /// Rung when something was settled.
    pub(crate) room: Notify,
    /// Takes nothing any more.
    pub(crate) closing: CancellationToken,
    closed: AtomicBool,
    lost: AtomicBool,
}

impl RedisConsumer {
    pub(crate) async fn enter(inner: &Arc<Inner>, options: Consume) -> Result<Self, Error> {
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        let wire = inner
            .commands
            .dedicated(move |_| {
                ring.notify_one();
                Ok::<_, Infallible>(())
            })
            .await?;
        let is_told = pump::ask_to_be_told(&wire).await?;
        let may_wait = pump::may_end_waits(inner, &wire).await?;
        let (id, sources) = (Uuid::new_v4().to_string(), Sources::new(&inner.broker.keys, &options.queues));
        let seen = lease::enter(inner, &id, &sources).await?;
        let shared = Shared {
            inner: Arc::clone(inner),
            id,
            name: options.name.clone(),
            unsettled_max: options.unsettled_max.max(1),
            wire,
            is_told,
            may_wait,
            bell,
            table: Mutex::default(),
            room: Notify::new(),
            closing: CancellationToken::new(),
            closed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            sources,
        };
        let node = options.name;
        let consumer = Self {
            pump: tokio::sync::Mutex::new(Pump::new(&shared)),
            shared: Arc::new(shared),
            cursor: Mutex::default(),
            care: Care::new(Arc::clone(inner), node),
        };
        consumer.care.look(seen);
        Ok(consumer)
    }

    /// What a batch asks for, as far as it is ours: place in the batch, receipt, end.
    fn prepare(&self, batch: &[Settlement]) -> (Vec<(usize, u64)>, Vec<Ended>) {
        let now = Timestamp::from_system(SystemTime::now());
        let table = locked(&self.shared.table);
        let mut asked: Vec<(usize, u64)> = Vec::with_capacity(batch.len());
        let mut ended = Vec::with_capacity(batch.len());
        let mut seen = HashSet::with_capacity(batch.len());
        for (place, settlement) in batch.iter().enumerate() {
            let Receipt::Number(receipt) = settlement.receipt else { continue };
            let Some(held) = table.get(receipt).filter(|_| seen.insert(receipt)) else { continue };
            ended.push(Ended {
                tag: held.tag.clone(),
                number: receipt,
                act: self.shared.act(held, &settlement.disposition, now),
            });
            asked.push((place, receipt));
        }
        (asked, ended)
    }

    /// Gives back all that is held, the last taken first, so that the first taken is the first served.
    async fn release(&self) -> Result<(), Error> {
        let receipts = locked(&self.shared.table).receipts();
        for part in receipts.rchunks(RELEASE_MAX) {
            let ended: Vec<Ended> = {
                let table = locked(&self.shared.table);
                let now = Timestamp::default();
                let release = |receipt: &u64| {
                    let held = table.get(*receipt)?;
                    let act = self.shared.act(held, &Disposition::Release, now);
                    Some(Ended { tag: held.tag.clone(), number: *receipt, act })
                };
                part.iter().filter_map(release).collect()
            };
            if settle(&self.shared.inner, &self.shared.id, &ended).await?.is_none() {
                self.shared.lost.store(true, Ordering::Relaxed);
                return Ok(());
            }
            let mut table = locked(&self.shared.table);
            part.iter().for_each(|receipt| table.remove(*receipt));
        }
        Ok(())
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut pump = self.pump.lock().await;
        tokio::select! {
            () = self.care.has_looked() => {}
            () = self.shared.closing.cancelled() => {}
        }
        loop {
            self.shared.check()?;
            let ready = pump.ready(&self.shared, max);
            if !ready.is_empty() {
                return Ok(ready);
            }
            pump.step(&self.shared, max).await?;
        }
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>, Error> {
        let mut answers = vec![Settled::Lost; batch.len()];
        let (asked, ended) = self.prepare(&batch);
        if ended.is_empty() {
            return Ok(answers);
        }
        let Some(done) = settle(&self.shared.inner, &self.shared.id, &ended).await? else {
            self.shared.lost.store(true, Ordering::Relaxed);
            return Ok(answers);
        };
        let mut table = locked(&self.shared.table);
        for ((place, receipt), done) in asked.into_iter().zip(done) {
            table.remove(receipt);
            if let Some(answer) = answers.get_mut(place).filter(|_| done) {
                *answer = Settled::Done;
            }
        }
        drop(table);
        self.shared.room.notify_one();
        Ok(answers)
    }

    async fn renew(&self) -> Result<(), Error> {
        let Shared { inner, id, sources, .. } = &*self.shared;
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(self.shared.closed());
        }
        let from = locked(&self.cursor).clone();
        let Some(renewed) = lease::renew(inner, id, sources, &from).await? else {
            self.shared.lost.store(true, Ordering::Relaxed);
            return Err(self.shared.lease_lost());
        };
        *locked(&self.cursor) = renewed.next;
        self.care.look(renewed.seen);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Whoever receives leaves the pump at this.
        self.shared.closing.cancel();
        self.care.end();
        let mut pump = self.pump.lock().await;
        pump.finish(&self.shared).await;
        self.release().await?;
        lease::leave(&self.shared.inner, &self.shared.id, &self.shared.sources).await?;
        self.shared.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for RedisConsumer {
    fn drop(&mut self) {
        if !self.shared.closed.load(Ordering::Relaxed) {
            self.shared.inner.broker.lose(self.shared.id.clone());
        }
    }
}

impl Shared {
    /// Whether it may take.
    fn check(&self) -> Result<(), Error> {
        if self.closing.is_cancelled() {
            return Err(self.closed());
        }
        if self.lost.load(Ordering::Relaxed) {
            return Err(self.lease_lost());
        }
        Ok(())
    }

    pub(crate) fn lose(&self) -> Error {
        self.lost.store(true, Ordering::Relaxed);
        self.lease_lost()
    }

    fn lease_lost(&self) -> Error {
        Error::LeaseLost { name: self.name.clone() }
    }

    fn closed(&self) -> Error {
        Error::Closed { name: self.name.clone() }
    }

    /// How a disposition is done here.
    fn act(&self, held: &Held, disposition: &Disposition, now: Timestamp) -> Act {
        let queue = self.sources.queues.get(held.queue).map_or("", |source| source.name.as_str());
        let list = || self.inner.broker.keys.list(queue, held.step);
        // It was read when it came: marking it can't fail. If it did, an unmarked one is better than none.
        let marked =
            |count| envelope::redelivered(&held.envelope, count).unwrap_or_else(|_| held.envelope.clone());
        match disposition {
            Disposition::Ack => Act::Ack,
            Disposition::Requeue => {
                Act::Back { list: list(), envelope: marked(held.delivery_count.saturating_add(1)) }
            }
            Disposition::Release => Act::Head { list: list(), envelope: marked(held.delivery_count) },
            Disposition::Delay(until) => {
                let parking = Parking::until(&self.inner, *until, now, queue, held.step, &held.envelope);
                parking.map_or_else(|| Act::Back { list: list(), envelope: held.envelope.clone() }, Act::Park)
            }
            Disposition::DeadLetter(reason) => Act::Dead {
                queue: queue.to_owned(),
                letter: dead::write(queue, held.delivery_count, reason, &held.envelope),
            },
        }
    }
}
