//! A consumer with the number of its next batch, and its renewals.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rwork_broker::{Batch, Error};
use tokio::task::JoinHandle;

use super::*;

/// A consumer as a worker has one: it numbers its batches.
pub(super) struct Consuming {
    pub(super) consumer: Arc<dyn Consumer>,
    /// Number of the last batch.
    number: AtomicU64,
    /// Fifth of a lease, or a second where there is none.
    renew_every: Duration,
}

impl Consuming {
    /// Begins to consume.
    pub(super) async fn start(broker: &Arc<dyn Broker>, queues: &[&QueueName]) -> Result<Self> {
        let queues = queues.iter().map(|queue| (*queue).clone()).collect();
        Self::with(broker, Consume { queues, name: "suite@host".to_owned(), unsettled_max: 1000 }).await
    }

    pub(super) async fn with(broker: &Arc<dyn Broker>, options: Consume) -> Result<Self> {
        let renew_every =
            broker.capabilities().ownership.lease().map_or(Duration::from_secs(1), |lease| lease / 5);
        let consumer = Arc::from(broker.consume(options).await?);
        Ok(Self { consumer, number: AtomicU64::new(0), renew_every })
    }

    /// Receives until there are `count`.
    pub(super) async fn receive(&self, count: usize) -> Result<Vec<Delivery>> {
        let mut all = Vec::new();
        while all.len() < count {
            let batch = self.consumer.receive(room(count - all.len())).await?;
            ensure!(!batch.is_empty(), "`receive` returned with nothing");
            ensure!(batch.len() <= count - all.len(), "`receive` returned more than it was asked for");
            all.extend(batch);
        }
        Ok(all)
    }

    /// Receives one.
    pub(super) async fn receive_one(&self) -> Result<Delivery> {
        let mut came = self.receive(1).await?;
        came.pop().ok_or_else(|| anyhow::anyhow!("nothing came"))
    }

    /// A batch with the next number.
    pub(super) fn batch(&self, commits: Vec<Commit>) -> Batch {
        Batch { number: self.number.fetch_add(1, Ordering::Relaxed) + 1, commits }
    }

    /// Commits under the next number.
    pub(super) async fn commit(&self, commits: Vec<Commit>) -> Result<Vec<Committed>, Error> {
        self.consumer.commit(&self.batch(commits)).await
    }

    /// Commits what must be done.
    pub(super) async fn done(&self, commits: Vec<Commit>) -> Result<()> {
        let count = commits.len();
        let answers = self.commit(commits).await?;
        ensure!(answers == vec![Committed::Done; count], "expected all to be done, got {answers:?}");
        Ok(())
    }

    /// Ends all alike; every one must have been ours.
    pub(super) async fn end(&self, deliveries: Vec<Delivery>, how: &Disposition) -> Result<()> {
        self.done(deliveries.into_iter().map(|delivery| end(delivery, how.clone())).collect()).await
    }

    /// Closes with nothing started.
    pub(super) async fn close(&self) -> Result<()> {
        Ok(self.consumer.close(&[]).await?)
    }

    /// Renews the consumer for as long as the answer is kept.
    pub(super) fn live(&self) -> Renewals {
        let (consumer, every) = (Arc::clone(&self.consumer), self.renew_every);
        Renewals(tokio::spawn(async move {
            let mut beat = tokio::time::interval(every);
            loop {
                beat.tick().await;
                // A failure is what some cases bring about; the calls of the case show it.
                let _ = consumer.renew().await;
            }
        }))
    }

    /// Asks what stands until there is an answer.
    pub(super) async fn resume(&self) -> Resumed {
        const PAUSE: Duration = Duration::from_millis(5);
        loop {
            match self.consumer.resume().await {
                Ok(resumed) => return resumed,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Renewals of one consumer, which end when this is dropped.
pub(super) struct Renewals(JoinHandle<()>);

impl Drop for Renewals {
    fn drop(&mut self) {
        self.0.abort();
    }
}
