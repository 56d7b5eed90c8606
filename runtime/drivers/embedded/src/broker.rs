//! The broker trait on the file.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Error, Ownership, PriorityOrder,
    Publish, QueueInfo,
};
use rwork_protocol::QueueName;

use crate::acts::dead::{self, Fate, Move, PurgeQueue, TURN_ROWS};
use crate::acts::publish::{self, Post};
use crate::consumer::EmbeddedConsumer;
use crate::handle::{Embedded, Inner};
use crate::row;

/// Pause between two turns of one long act, in which other processes find the file unlocked.
const TURN_PAUSE: Duration = Duration::from_millis(1);

#[async_trait]
impl Broker for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            delayed: true,
            priorities: Some(PriorityOrder::LowFirst),
            ownership: Ownership::Process,
            commits_records: !self.results_elsewhere,
            counts_deliveries: true,
            atomic_publish: true,
            exchanges: false,
            message_bytes_max: self.inner.options.message_bytes_max,
        }
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error> {
        let (mut accepted, mut outcomes) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for publish in batch {
            outcomes.push(self.inner.post(publish).map(|post| accepted.push(post)));
        }
        if !accepted.is_empty() {
            self.inner.act(publish::Publish { batch: accepted }).await?;
        }
        Ok(outcomes)
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        Ok(Box::new(EmbeddedConsumer::start(Arc::clone(&self.inner), options).await?))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.inner.read("list queues", queues).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, Error> {
        let last = self.inner.read("purge a queue", dead::last_message).await?;
        let mut purged = 0;
        loop {
            let some = self.inner.act(PurgeQueue { queue: queue.clone(), last }).await?;
            purged += some as u64;
            if some < TURN_ROWS {
                return Ok(purged);
            }
            tokio::time::sleep(TURN_PAUSE).await;
        }
    }

    async fn dead_letters(&self, query: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        self.inner.read("list dead letters", move |db| dead::list(db, &query)).await
    }

    async fn retry_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        self.inner.move_dead(query, Fate::Retried).await
    }

    async fn purge_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        self.inner.move_dead(query, Fate::Purged).await
    }
}

impl Inner {
    async fn move_dead(&self, query: DeadLetterQuery, fate: Fate) -> Result<u64, Error> {
        let ids = self.read("list dead letters", move |db| dead::matching(db, &query)).await?;
        let mut moved = 0;
        for ids in ids.chunks(TURN_ROWS) {
            if moved > 0 {
                tokio::time::sleep(TURN_PAUSE).await;
            }
            moved += self.act(Move { ids: ids.to_vec(), fate }).await? as u64;
        }
        Ok(moved)
    }

    /// A message that can be inserted.
    pub(crate) fn post(&self, publish: Publish) -> Result<Post, Error> {
        let Publish { route, message, not_before } = publish;
        if !route.exchange.is_empty() {
            let what = format!("publish to exchange `{}`: it has none", route.exchange);
            return Err(Error::Unsupported { url: self.url.clone(), what });
        }
        let (limit, size) = (self.options.message_bytes_max, message.size());
        if size > limit {
            return Err(Error::TooLarge { limit, size });
        }
        let queue = QueueName::new(&route.routing_key).map_err(|error| Error::Act {
            act: format!("publish to queue {:?}", route.routing_key),
            retryable: false,
            source: Box::new(error),
        })?;
        Ok(Post { queue, message, not_before })
    }
}

/// Every queue that was ever named, each count by an index alone but that of what is held, which is little.
fn queues(db: &Connection) -> rusqlite::Result<Vec<QueueInfo>> {
    let mut select = db.prepare_cached(
        "WITH held AS MATERIALIZED (SELECT queue, count(*) AS count FROM msg WHERE owner IS NOT NULL GROUP BY queue)
         SELECT name,
           (SELECT count(*) FROM msg WHERE queue = name AND owner IS NULL AND eta IS NULL),
           coalesce((SELECT held.count FROM held WHERE held.queue = name), 0),
           (SELECT count(*) FROM msg WHERE queue = name AND eta IS NOT NULL),
           (SELECT count(*) FROM dead WHERE queue = name)
         FROM queue ORDER BY name",
    )?;
    let infos = select.query_map([], |found| {
        Ok(QueueInfo {
            name: row::queue(found, 0)?,
            ready: row::count(found, 1)?,
            unsettled: row::count(found, 2)?,
            delayed: row::count(found, 3)?,
            dead: row::count(found, 4)?,
        })
    })?;
    infos.collect()
}
