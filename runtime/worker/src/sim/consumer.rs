//! The model consumer: a driver of the contract, between the gate and the store.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rwork_broker::{Batch, Committed, Consume, Consumer, Delivery, Error, Receipt, Resumed, Room};
use rwork_model::{CommitBatch, ConsumerId, Driver, Observer, Post, Reap, Renewed, Token};

use super::broker::{ModelBroker, locked};
use super::gate::{Passage, Through, Way, failure, unreachable_error};

#[derive(Debug)]
pub(super) struct ModelConsumer {
    pub(super) handle: ModelBroker,
    pub(super) options: Consume,
    /// Shared with the world, which may copy the process.
    pub(super) driver: Arc<Mutex<Driver>>,
    pub(super) observer: Mutex<Observer>,
    /// The lines that this one's belongs to.
    pub(super) epoch: Mutex<(u64, u64)>,
}

impl ModelConsumer {
    fn id(&self) -> ConsumerId {
        locked(&self.driver).line().consumer
    }

    fn has_lines(&self) -> bool {
        self.handle.world.lock().column.has_lines()
    }

    fn is_connection(&self) -> bool {
        self.handle.world.lock().column.is_connection()
    }

    /// True if its line is whole; it is noticed here when it is not.
    fn is_whole(&self) -> bool {
        if *locked(&self.epoch) != self.handle.world.epoch(self.handle.worker) {
            locked(&self.driver).broke();
        }
        !locked(&self.driver).is_broken()
    }

    /// The line is lost, and its answer with it.
    fn lose(&self) -> Error {
        if !self.has_lines() {
            return failure("write", "I/O error");
        }
        let consumer = self.id();
        locked(&self.driver).broke();
        if self.is_connection() {
            let mut state = self.handle.world.lock();
            state.store.drop_connection(consumer);
            state.take_down(self.handle.world.elapsed());
        }
        self.handle.world.wake();
        unreachable_error()
    }

    /// A call that the store refuses needs resuming, too.
    fn refused(&self, error: Error) -> Error {
        if matches!(error, Error::LeaseLost { .. }) {
            locked(&self.driver).broke();
        }
        error
    }

    async fn enter<C: rwork_model::Call>(
        &self,
        act: &'static str,
        call: impl FnOnce() -> C,
    ) -> Result<Through, Error> {
        match self.handle.world.enter(self.handle.worker, Way::Broker, act).await {
            Passage::Through(through) => Ok(through),
            Passage::Fails(error) => Err(error),
            Passage::Cut(late) => {
                if let Some(after) = late.filter(|_| !self.is_connection()) {
                    self.handle.world.deliver_late(call(), after);
                }
                Err(self.lose())
            }
        }
    }

    /// Waits until something is taken, or was.
    async fn take(&self, room: Room, through: &Through) -> Result<(), Error> {
        let world = &self.handle.world;
        loop {
            let changed = world.changed().notified();
            if !self.is_whole() {
                return Err(unreachable_error());
            }
            if !locked(&self.driver).has_stash() {
                let call = locked(&self.driver).take(room);
                let taken = world.apply(&call).map_err(|error| self.refused(error))?;
                if through.is_lost && !taken.is_empty() {
                    locked(&self.driver).skip(taken.len());
                    return match self.has_lines() {
                        true => Err(self.lose()),
                        // Nothing can get lost on the way from a file.
                        false => {
                            locked(&self.driver).took(taken);
                            Ok(())
                        }
                    };
                }
                locked(&self.driver).took(taken);
            }
            if locked(&self.driver).has_stash() {
                return Ok(());
            }
            changed.await;
            world.while_stopped(self.handle.worker).await;
        }
    }

    /// Publishing and acking are two steps of a connection: it may be lost in between.
    fn publish_only(&self, call: &CommitBatch) {
        let publish = call.batch.commits.iter().flat_map(|commit| commit.publish.clone()).collect();
        let _ = self.handle.world.apply(&Post(publish));
    }

    /// What the answer to a renewal says of others.
    fn observe(&self, renewed: &Renewed) {
        let world = &self.handle.world;
        let others = &renewed.others;
        let dead: Vec<_> = if self.has_lines() {
            locked(&self.observer).answered(world.elapsed(), others)
        } else {
            let owner = |id: &ConsumerId| world.lock().consumers.get(id).map(|life| life.worker);
            let is_dead = |id: &ConsumerId| owner(id).is_some_and(|worker| !world.is_alive(worker));
            others.iter().filter(|(id, _)| is_dead(id)).copied().collect()
        };
        for (consumer, counter) in dead {
            world.trace(|| format!("worker {} finds {consumer:?} dead", self.handle.worker));
            let _ = world.apply(&Reap { consumer, counter });
        }
    }

    fn new_connection(&self) -> Resumed {
        let asked = self.handle.world.boot(self.handle.worker);
        let (consumer, token, incarnation) = self.handle.open(&self.options, asked);
        if let Some(life) = self.handle.world.lock().consumers.get_mut(&consumer) {
            life.driver = Arc::clone(&self.driver);
        }
        let gone = locked(&self.driver).begin_anew(consumer, token, incarnation);
        Resumed::Stands { fresh: Vec::new(), gone }
    }
}

#[async_trait]
impl Consumer for ModelConsumer {
    async fn resume(&self) -> Result<Resumed, Error> {
        let world = &self.handle.world;
        let asked = world.boot(self.handle.worker);
        let token = Token(world.number());
        let through = self.enter("resume", || locked(&self.driver).resume(token)).await?;
        *locked(&self.epoch) = world.epoch(self.handle.worker);
        if self.is_connection() {
            let stands = world.lock().column.stands_again;
            through.leave().await;
            return Ok(if stands { self.new_connection() } else { Resumed::Dead });
        }
        let call = locked(&self.driver).resume(token);
        let resumed = world.apply(&call)?;
        match resumed {
            // It renews no more, whatever an old snapshot still holds of it.
            Resumed::Dead => world.lock().abandon(self.id()),
            _ => world.lock().relieve(self.id()),
        }
        if through.is_lost {
            through.leave().await;
            return Err(self.lose());
        }
        locked(&self.driver).resumed(token, &resumed);
        world.trace(|| format!("worker {}: {:?} is resumed: {resumed:?}", self.handle.worker, self.id()));
        through.leave().await;
        if let Some(life) = world.lock().consumers.get_mut(&self.id()) {
            life.renewed = life.renewed.max(asked);
        }
        Ok(match resumed {
            Resumed::Stands { fresh, gone } => {
                Resumed::Stands { fresh: world.marked(self.id(), fresh), gone }
            }
            over => over,
        })
    }

    async fn receive(&self, room: Room) -> Result<Vec<Delivery>, Error> {
        if !self.is_whole() {
            return Err(unreachable_error());
        }
        let through = self.enter("receive", || locked(&self.driver).take(room)).await?;
        self.take(room, &through).await?;
        // A call that is dropped or fails here leaves what it took to the next one.
        through.leave().await;
        if !self.is_whole() {
            return Err(unreachable_error());
        }
        let deliveries = locked(&self.driver).hand_out(room.messages);
        Ok(self.handle.world.marked(self.id(), deliveries))
    }

    async fn commit(&self, batch: &Batch) -> Result<Vec<Committed>, Error> {
        let may = |consumer: &Self| consumer.is_whole() || locked(&consumer.driver).may_commit();
        if !may(self) {
            return Err(unreachable_error());
        }
        let through = self.enter("commit", || locked(&self.driver).commit(batch)).await?;
        if !may(self) {
            return Err(unreachable_error());
        }
        let mut call = locked(&self.driver).commit(batch);
        if self.handle.world.lock().mistake == Some(super::Mistake::NewNumber) {
            call.batch.number = self.handle.world.number();
        }
        if through.is_lost && self.is_connection() && self.handle.world.lock().rng.bool() {
            self.publish_only(&call);
            through.leave().await;
            return Err(self.lose());
        }
        let answers = self.handle.world.apply(&call).map_err(|error| self.refused(error))?;
        if through.is_lost {
            through.leave().await;
            return Err(self.lose());
        }
        locked(&self.driver).committed(batch, &answers);
        through.leave().await;
        Ok(answers)
    }

    async fn renew(&self) -> Result<bool, Error> {
        let (world, worker) = (&self.handle.world, self.handle.worker);
        let asked = world.boot(worker);
        let passage = world.enter(worker, Way::Renewal, "renew").await;
        let failed = || locked(&self.observer).failed(world.elapsed());
        let through = match passage {
            Passage::Through(through) => through,
            Passage::Fails(error) => {
                failed();
                return Err(error);
            }
            // Without a lease it is a look at the only connection.
            Passage::Cut(_) if self.is_connection() => return Err(self.lose()),
            Passage::Cut(late) => {
                failed();
                if let Some(after) = late {
                    world.deliver_late(locked(&self.driver).renew(), after);
                }
                return Err(unreachable_error());
            }
        };
        if self.is_connection() {
            return if self.is_whole() { Ok(true) } else { Err(unreachable_error()) };
        }
        let call = locked(&self.driver).renew();
        let renewed = world.apply(&call)?;
        world.lock().relieve(self.id());
        if through.is_lost {
            through.leave().await;
            failed();
            return Err(unreachable_error());
        }
        self.observe(&renewed);
        through.leave().await;
        if let Some(life) = world.lock().consumers.get_mut(&self.id()) {
            life.renewed = life.renewed.max(asked);
        }
        Ok(true)
    }

    async fn close(&self, started: &[Receipt]) -> Result<(), Error> {
        if !self.is_whole() {
            return Err(unreachable_error());
        }
        let through = self.enter("close", || locked(&self.driver).close(started)).await?;
        let call = locked(&self.driver).close(started);
        self.handle.world.apply(&call).map_err(|error| self.refused(error))?;
        let is_lost = through.is_lost;
        through.leave().await;
        if is_lost { Err(self.lose()) } else { Ok(()) }
    }
}
