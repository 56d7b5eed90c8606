//! The broker trait on the file.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Error, PriorityOrder, Publish,
    QueueInfo,
};
use rwork_protocol::QueueName;

use crate::acts::publish::{self, Post};
use crate::acts::{dead, session};
use crate::consumer::Seated;
use crate::handle::{Embedded, Inner};
use crate::row;
use crate::seat::Mailbox;

#[async_trait]
impl Broker for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            delayed: true,
            priorities: Some(PriorityOrder::LowFirst),
            lease: Some(self.inner.options.lease),
            counts_deliveries: true,
            atomic_publish: true,
            exchanges: false,
            message_bytes_max: self.inner.options.message_bytes_max,
        }
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch = batch.into_iter().map(|publish| self.inner.post(publish)).collect::<Result<_, _>>()?;
        self.inner.act(publish::Publish { batch }).await
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        let mailbox = Arc::new(Mailbox::new(options.name.clone()));
        let open = session::Open {
            // Random, so that no consumer of any process ever had it; positive, as SQLite's row ids.
            owner: fastrand::i64(1..),
            name: options.name.clone(),
            lease: self.inner.options.lease,
            queues: options.queues.into(),
            unsettled_max: options.unsettled_max.max(1),
            mailbox: Arc::clone(&mailbox),
        };
        let owner = open.owner;
        self.inner.act(open).await?;
        Ok(Box::new(Seated::new(Arc::clone(&self.inner), owner, options.name, mailbox)))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.inner.read("list queues", queues).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, Error> {
        self.inner.act(dead::PurgeQueue { queue: queue.clone() }).await
    }

    async fn dead_letters(&self, query: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        self.inner.read("list dead letters", move |db| dead::list(db, &query)).await
    }

    async fn retry_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        self.inner.act(dead::Retry { query }).await
    }

    async fn purge_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        self.inner.act(dead::Purge { query }).await
    }
}

impl Inner {
    fn post(&self, publish: Publish) -> Result<Post, Error> {
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

/// Every queue that was ever named, each count by an index.
fn queues(db: &Connection) -> rusqlite::Result<Vec<QueueInfo>> {
    let mut select = db.prepare_cached(
        "SELECT name,
           (SELECT count(*) FROM msg WHERE queue = name AND owner IS NULL AND eta IS NULL),
           (SELECT count(*) FROM msg WHERE owner IS NOT NULL AND queue = name),
           (SELECT count(*) FROM msg WHERE eta IS NOT NULL AND queue = name),
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
