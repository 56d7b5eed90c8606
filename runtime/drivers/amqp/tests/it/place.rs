//! A virtual host of one's own, and what tests do in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rwork_amqp::{Amqp, Options, QueueType, Role};
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Consumer, Delivery, Disposition, Ending, Publish, Room, Route,
};
use rwork_protocol::{Message, Properties, QueueName, Timestamp};

use crate::rabbitmq::RabbitServer;

pub(crate) struct Place {
    pub(crate) server: &'static RabbitServer,
    pub(crate) vhost: String,
}

impl Place {
    /// On the server of all tests.
    pub(crate) async fn new() -> Self {
        let server = RabbitServer::shared();
        Self { server, vhost: server.fresh_vhost().await.unwrap() }
    }

    pub(crate) fn options(&self, kind: QueueType) -> Options {
        let mut options = Options::parse(&self.server.url(&self.vhost), Role::Broker).unwrap();
        (options.default_queue_type, options.missing_queue_type) = (kind, kind);
        options
    }

    pub(crate) async fn classic(&self) -> Arc<Amqp> {
        connect(self.options(QueueType::Classic)).await
    }

    pub(crate) async fn quorum(&self) -> Arc<Amqp> {
        connect(self.options(QueueType::Quorum)).await
    }

    /// Another client, which is nobody's driver.
    pub(crate) async fn stranger(&self) -> lapin::Channel {
        let url = format!("{}?heartbeat=0", self.server.url(&self.vhost));
        let connection =
            lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }

    /// Waiting and unsettled messages of a queue, as the server sees them.
    pub(crate) async fn counts(&self, queue: &str) -> (u64, u64) {
        let queue = self.server.queue(&self.vhost, queue).await.unwrap().unwrap();
        (queue.ready, queue.unsettled)
    }

    /// Waits until the server sees so many.
    pub(crate) async fn until(&self, queue: &str, ready: u64, unsettled: u64) {
        let holds = |queues: &[crate::rabbitmq::Queue]| {
            queues
                .iter()
                .any(|found| found.name == queue && (found.ready, found.unsettled) == (ready, unsettled))
        };
        self.server.until(&self.vhost, holds).await.unwrap();
    }
}

pub(crate) async fn connect(options: Options) -> Arc<Amqp> {
    Arc::new(Amqp::connect(options).await.unwrap())
}

pub(crate) fn celery() -> QueueName {
    QueueName::new("celery").unwrap()
}

pub(crate) fn message(number: usize) -> Message {
    Message {
        headers: format!(r#"{{"id":"{number}","task":"t"}}"#).into(),
        properties: Properties {
            correlation_id: Some(number.to_string()),
            delivery_mode: Some(2),
            ..Properties::default()
        },
        content_type: "application/json".to_owned(),
        content_encoding: "utf-8".to_owned(),
        body: "[[],{},null]".into(),
    }
}

pub(crate) fn to(queue: &QueueName, message: Message) -> Publish {
    Publish { route: Route::queue(queue), message, not_before: None }
}

pub(crate) fn at(queue: &QueueName, number: usize, time: Timestamp) -> Publish {
    Publish { not_before: Some(time), ..to(queue, message(number)) }
}

pub(crate) async fn send(broker: &Amqp, queue: &QueueName, numbers: std::ops::Range<usize>) {
    let batch = numbers.map(|number| to(queue, message(number))).collect();
    broker.publish_all(batch).await.unwrap();
}

pub(crate) async fn consume(broker: &Amqp, queues: &[&QueueName], unsettled_max: usize) -> Box<dyn Consumer> {
    let queues = queues.iter().map(|queue| (*queue).clone()).collect();
    broker.consume(Consume { queues, name: "driver@host".to_owned(), unsettled_max }).await.unwrap()
}

pub(crate) async fn receive(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(consumer.receive(room(count - all.len())).await.unwrap());
    }
    all
}

/// So many, however large.
pub(crate) fn room(messages: usize) -> Room {
    Room { messages, bytes: usize::MAX }
}

pub(crate) async fn settle(consumer: &dyn Consumer, came: Vec<Delivery>, how: &Disposition) {
    let count = came.len();
    let batch = batch(came.into_iter().map(|delivery| settled(delivery, how)).collect());
    assert_eq!(consumer.commit(&batch).await.unwrap(), vec![Committed::Done; count]);
}

/// A delivery's end, from which nothing follows.
pub(crate) fn settled(delivery: Delivery, how: &Disposition) -> Commit {
    ended(Ending::Settle(delivery.settle(how.clone())), Vec::new())
}

pub(crate) fn ended(ending: Ending, publish: Vec<Publish>) -> Commit {
    Commit { records: Vec::new(), publish, ending }
}

/// Commits under a number that no batch of this process has.
pub(crate) fn batch(commits: Vec<Commit>) -> Batch {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    Batch { number: NUMBERS.fetch_add(1, Ordering::Relaxed) + 1, commits }
}

pub(crate) fn numbers(came: &[Delivery]) -> Vec<usize> {
    came.iter()
        .map(|delivery| delivery.message.properties.correlation_id.as_ref().unwrap().parse().unwrap())
        .collect()
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}
