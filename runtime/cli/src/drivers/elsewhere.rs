//! A broker whose results are kept elsewhere: its commits carry no records, though its store could keep them.

use std::sync::Arc;

use async_trait::async_trait;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Error, Publish, QueueInfo,
};
use rwork_protocol::QueueName;

/// The broker, as it is apart from that.
#[derive(Clone, Debug)]
pub(super) struct ResultsElsewhere(pub(super) Arc<dyn Broker>);

#[async_trait]
impl Broker for ResultsElsewhere {
    fn capabilities(&self) -> Capabilities {
        Capabilities { commits_records: false, ..self.0.capabilities() }
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error> {
        self.0.publish(batch).await
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        self.0.consume(options).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.0.queues().await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, Error> {
        self.0.purge(queue).await
    }

    async fn dead_letters(&self, query: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        self.0.dead_letters(query).await
    }

    async fn retry_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        self.0.retry_dead_letters(query).await
    }

    async fn purge_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error> {
        self.0.purge_dead_letters(query).await
    }
}
