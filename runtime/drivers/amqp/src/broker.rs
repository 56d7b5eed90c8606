//! The broker trait on RabbitMQ.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Error, Ownership, PriorityOrder,
    Publish, QueueInfo,
};
use rwork_protocol::QueueName;

use crate::consumer::{AmqpConsumer, Shared};
use crate::declare::{self, DeadLetterRoute, Kind};
use crate::handle::{Amqp, Inner};
use crate::link::Link;
use crate::publish::{self, Pool};
use crate::{dead, delayed, queues};

#[async_trait]
impl Broker for Amqp {
    fn capabilities(&self) -> Capabilities {
        let options = &self.inner.options;
        Capabilities {
            delayed: true,
            priorities: options.max_priority.map(|_| PriorityOrder::HighFirst),
            ownership: Ownership::Connection,
            commits_records: false,
            counts_deliveries: false,
            atomic_publish: false,
            exchanges: true,
            message_bytes_max: options.message_bytes_max,
        }
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error> {
        publish::publish(&self.inner, batch).await
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(AmqpConsumer::enter(&self.inner, options).await?))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        queues::list(&self.inner).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, Error> {
        queues::purge(&self.inner, queue).await
    }

    async fn dead_letters(&self, query: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        dead::list(&self.inner, &query).await
    }

    async fn retry_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        dead::retry(&self.inner, &query).await
    }

    async fn purge_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        dead::purge(&self.inner, &query).await
    }
}

/// More names or marks than this are forgotten and found out anew.
const REMEMBERED_MAX: usize = 10_000;

/// What all consumers and publishers of a handle share.
#[derive(Debug, Default)]
pub(crate) struct BrokerState {
    pub(crate) pool: Pool,
    /// Queues that are known to be there, and where they send what is rejected. Held for one look.
    declared: Mutex<HashMap<QueueName, Option<DeadLetterRoute>>>,
    /// Queues to which delayed messages find their way. Held for one look.
    delayed: Mutex<Delayed>,
    /// The queue of dead letters is known to be there.
    has_dead_letters: AtomicBool,
    /// Messages that went back to a classic queue as if they had never been delivered: the server will say that they were.
    /// Held for one look.
    released: Mutex<HashMap<u64, u32>>,
    /// Those of this process, whose hands are looked into by whoever counts. Held for one look.
    consumers: Mutex<Vec<Weak<Shared>>>,
    /// Whoever looks through a queue holds all of it meanwhile, so that a second one at the same time would see nothing.
    /// Held over waiting for that reason.
    pub(crate) looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Delayed {
    is_prepared: bool,
    bound: HashSet<QueueName>,
}

impl BrokerState {
    /// Makes a task queue that this handle has not seen yet.
    pub(crate) async fn declared(&self, inner: &Inner, link: &Link, queue: &QueueName) -> Result<(), Error> {
        if locked(&self.declared).contains_key(queue) {
            return Ok(());
        }
        self.declare(inner, link, queue).await.map(drop)
    }

    /// Makes a task queue, or finds out how it is.
    pub(crate) async fn declare(&self, inner: &Inner, link: &Link, queue: &QueueName) -> Result<Kind, Error> {
        let (kind, dead_letters) = declare::task_queue(link, &inner.options, queue).await?;
        let mut declared = locked(&self.declared);
        if declared.len() >= REMEMBERED_MAX {
            declared.clear();
        }
        declared.insert(queue.clone(), dead_letters);
        Ok(kind)
    }

    /// Where a queue sends what is rejected, as far as it is known.
    pub(crate) fn dead_letter_route(&self, queue: &QueueName) -> Option<DeadLetterRoute> {
        locked(&self.declared).get(queue).cloned().flatten()
    }

    /// It is gone.
    pub(crate) fn forget(&self, queue: &QueueName) {
        locked(&self.declared).remove(queue);
        locked(&self.delayed).bound.remove(queue);
    }

    pub(crate) fn forget_delayed(&self) {
        *locked(&self.delayed) = Delayed::default();
    }

    /// Every queue this handle had to do with, and those of the configuration.
    pub(crate) fn known(&self, inner: &Inner) -> BTreeSet<QueueName> {
        let configured = inner.options.queues.iter().cloned();
        configured.chain(locked(&self.declared).keys().cloned()).collect()
    }

    /// Makes delayed delivery ready.
    pub(crate) async fn prepare_delayed(&self, inner: &Inner, link: &Link) -> Result<(), Error> {
        if locked(&self.delayed).is_prepared {
            return Ok(());
        }
        delayed::prepare(inner, link).await?;
        locked(&self.delayed).is_prepared = true;
        Ok(())
    }

    /// Makes delayed delivery to this queue ready.
    pub(crate) async fn bound_to_delayed(
        &self,
        inner: &Inner,
        link: &Link,
        queue: &QueueName,
    ) -> Result<(), Error> {
        if locked(&self.delayed).bound.contains(queue) {
            return Ok(());
        }
        self.prepare_delayed(inner, link).await?;
        self.declared(inner, link, queue).await?;
        delayed::bind(link, queue).await?;
        let mut delayed = locked(&self.delayed);
        if delayed.bound.len() >= REMEMBERED_MAX {
            delayed.bound.clear();
        }
        delayed.bound.insert(queue.clone());
        Ok(())
    }

    pub(crate) fn has_dead_letters(&self) -> bool {
        self.has_dead_letters.load(Ordering::Relaxed)
    }

    pub(crate) fn found_dead_letters(&self) {
        self.has_dead_letters.store(true, Ordering::Relaxed);
    }

    /// It goes back uncounted.
    pub(crate) fn release(&self, fingerprint: u64) {
        let mut released = locked(&self.released);
        if released.len() >= REMEMBERED_MAX {
            released.clear();
        }
        *released.entry(fingerprint).or_default() += 1;
    }

    /// Whether it comes because it was released.
    pub(crate) fn was_released(&self, fingerprint: u64) -> bool {
        let mut released = locked(&self.released);
        let Some(count) = released.get_mut(&fingerprint) else { return false };
        *count -= 1;
        if *count == 0 {
            released.remove(&fingerprint);
        }
        true
    }

    pub(crate) fn enter(&self, consumer: &Arc<Shared>) {
        let mut consumers = locked(&self.consumers);
        consumers.retain(|known| known.strong_count() > 0);
        consumers.push(Arc::downgrade(consumer));
    }

    /// Those that live.
    pub(crate) fn consumers(&self) -> Vec<Arc<Shared>> {
        locked(&self.consumers).iter().filter_map(Weak::upgrade).collect()
    }
}

/// A panic elsewhere leaves nothing half done in any of these.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
