//! The broker trait on Redis.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Error, Ownership, PriorityOrder,
    Publish, QueueInfo,
};
use rwork_protocol::QueueName;

use crate::consumer::RedisConsumer;
use crate::handle::Redis;
use crate::keys::BrokerKeys;
use crate::options::Transport;
use crate::{dead_letters, publish, queues};

#[async_trait]
impl Broker for Redis {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            delayed: true,
            priorities: Some(PriorityOrder::LowFirst),
            ownership: Ownership::Lease(self.inner.options.lease),
            commits_records: self.results.is_some(),
            counts_deliveries: true,
            atomic_publish: true,
            exchanges: true,
            message_bytes_max: self.inner.options.message_bytes_max,
        }
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error> {
        publish::publish(&self.inner, &batch).await
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(RedisConsumer::enter(self, options).await?))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        queues::list(&self.inner).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, Error> {
        queues::purge(&self.inner, queue).await
    }

    async fn dead_letters(&self, query: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        dead_letters::list(&self.inner, &query).await
    }

    async fn retry_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        dead_letters::retry(&self.inner, &query).await
    }

    async fn purge_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        dead_letters::purge(&self.inner, &query).await
    }
}

/// What all consumers and publishers of a handle share.
#[derive(Debug)]
pub(crate) struct BrokerState {
    pub(crate) keys: BrokerKeys,
    /// Queues that were bound by this handle. Held for one look.
    bound: Mutex<HashSet<QueueName>>,
    /// A consumer of this handle was told that it is dead, and none has followed it yet.
    pub(crate) has_died: AtomicBool,
}

/// Queues whose bindings are remembered as made; then it begins anew.
const BOUND_MAX: usize = 10_000;

impl BrokerState {
    pub(crate) fn new(transport: &Transport) -> Self {
        Self { keys: BrokerKeys::new(transport), bound: Mutex::default(), has_died: AtomicBool::new(false) }
    }

    /// Those of the queues that this handle has not bound yet.
    pub(crate) fn unbound<'a>(&self, queues: impl Iterator<Item = &'a QueueName>) -> HashSet<&'a QueueName> {
        let bound = locked(&self.bound);
        queues.filter(|queue| !bound.contains(*queue)).collect()
    }

    pub(crate) fn bind<'a>(&self, queues: impl IntoIterator<Item = &'a QueueName>) {
        let mut bound = locked(&self.bound);
        if bound.len() >= BOUND_MAX {
            bound.clear();
        }
        bound.extend(queues.into_iter().cloned());
    }
}

/// A panic elsewhere leaves nothing half done in any of these.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
