//! The model broker, as one worker reaches it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Error, Publish, QueueInfo,
};
use rwork_model::{ConsumerId, Driver, Observer, Open, Post, Token};
use rwork_protocol::QueueName;

use super::consumer::ModelConsumer;
use super::gate::{Passage, Way, unreachable_error};
use super::world::{Life, World};

/// The longest backoff of a worker and its deadline for a new line: outages that others may have when ours is over.
const LONGEST_OUTAGE: Duration = Duration::from_secs(15);

/// One worker's handle.
#[derive(Clone, Debug)]
pub(super) struct ModelBroker {
    pub(super) world: World,
    pub(super) worker: u64,
}

impl ModelBroker {
    /// A new consumer in the store. `Err`: the answer was lost.
    pub(super) fn open(&self, options: &Consume, asked: Duration) -> (ConsumerId, Token, u64) {
        let world = &self.world;
        let (consumer, token) = (ConsumerId(world.number()), Token(world.number()));
        let open = Open { consumer, token, options: options.clone() };
        let incarnation = world.apply(&open).unwrap_or_default();
        let life = Life {
            worker: self.worker,
            driver: Arc::new(Mutex::new(Driver::new(consumer, token, incarnation))),
            renewed: asked,
            is_troubled: false,
            is_cloned: false,
        };
        world.lock().consumers.insert(consumer, life);
        (consumer, token, incarnation)
    }
}

#[async_trait]
impl Broker for ModelBroker {
    fn capabilities(&self) -> Capabilities {
        self.world.lock().column.capabilities()
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error> {
        let through = match self.world.enter(self.worker, Way::Broker, "publish").await {
            Passage::Through(through) => through,
            Passage::Fails(error) => return Err(error),
            Passage::Cut(_) => return Err(unreachable_error()),
        };
        let answers = self.world.apply(&Post(batch))?;
        let is_lost = through.is_lost;
        through.leave().await;
        if is_lost {
            return Err(unreachable_error());
        }
        let refused =
            |why: String| Error::Act { act: "publish".into(), retryable: false, source: why.into() };
        Ok(answers.into_iter().map(|answer| answer.map_err(refused)).collect())
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        let asked = self.world.boot(self.worker);
        let through = match self.world.enter(self.worker, Way::Broker, "consume").await {
            Passage::Through(through) => through,
            Passage::Fails(error) => return Err(error),
            Passage::Cut(_) => return Err(unreachable_error()),
        };
        let (consumer, _, _) = self.open(&options, asked);
        let (is_lost, epoch) = (through.is_lost, self.world.epoch(self.worker));
        self.world.trace(|| format!("worker {} consumes as {consumer:?}", self.worker));
        through.leave().await;
        let driver = self.world.lock().consumers.get(&consumer).map(|life| Arc::clone(&life.driver));
        let Some(driver) = driver.filter(|_| !is_lost) else {
            // The consumer that nobody knows of is found dead, or is gone with its connection.
            let mut state = self.world.lock();
            if state.column.is_connection() {
                state.store.drop_connection(consumer);
            }
            if let Some(life) = state.consumers.get_mut(&consumer) {
                life.is_troubled = true;
            }
            return Err(unreachable_error());
        };
        let lease = self.capabilities().ownership.lease().unwrap_or_default();
        let observer = Mutex::new(Observer::new(lease, LONGEST_OUTAGE));
        let handle = self.clone();
        Ok(Box::new(ModelConsumer { handle, options, driver, observer, epoch: Mutex::new(epoch) }))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        Ok(Vec::new())
    }

    async fn purge(&self, _: &QueueName) -> Result<u64, Error> {
        Ok(0)
    }

    async fn dead_letters(&self, _: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        Ok(Vec::new())
    }

    async fn retry_dead_letters(&self, _: DeadLetterQuery) -> Result<u64, Error> {
        Ok(0)
    }

    async fn purge_dead_letters(&self, _: DeadLetterQuery) -> Result<u64, Error> {
        Ok(0)
    }
}

/// Held for one move.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
