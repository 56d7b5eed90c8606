//! What the tests of the broker share: messages, consumers, and a look at the keys as a kombu worker has it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Consumer, Delivery, Disposition, Ending, Publish, Reason,
    Receipt, Room, Route,
};
use rwork_protocol::{Message, Properties, QueueName, Timestamp};
use rwork_redis::{Options, Redis, Role};

use crate::common::within;

pub(crate) type Admin = MultiplexedConnection;

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

/// A message like Celery's, told apart by its number.
pub(crate) fn message(number: usize) -> Message {
    Message {
        headers: Bytes::from(format!(r#"{{"id": "{number}", "task": "t", "retries": 0}}"#)),
        properties: Properties {
            correlation_id: Some(number.to_string()),
            delivery_mode: Some(2),
            priority: Some(0),
            ..Properties::default()
        },
        content_type: "application/json".to_owned(),
        content_encoding: "utf-8".to_owned(),
        body: Bytes::from(format!("[[{number}], {{}}, null]")),
    }
}

pub(crate) fn to(name: &str, number: usize) -> Publish {
    Publish { route: Route::queue(&queue(name)), message: message(number), not_before: None }
}

pub(crate) fn with_priority(name: &str, number: usize, priority: u8) -> Publish {
    let mut publish = to(name, number);
    publish.message.properties.priority = Some(priority);
    publish
}

/// An envelope as a kombu producer writes it.
pub(crate) fn envelope(number: usize, queue: &str, tag: &str) -> String {
    format!(
        r#"{{"body": "W1tdLCB7fSwgbnVsbF0=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"id": "{number}", "task": "t"}}, "properties": {{"correlation_id": "{number}", "delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": "{queue}"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "{tag}"}}}}"#
    )
}

/// Connects with some options changed.
pub(crate) async fn connect(url: &str, change: impl FnOnce(&mut Options)) -> Redis {
    let mut options = Options::parse(url, Role::Broker).unwrap();
    change(&mut options);
    Redis::connect(options).await.unwrap()
}

pub(crate) async fn consume(redis: &Redis, queues: &[&str]) -> Box<dyn Consumer> {
    consume_many(redis, queues, 1000).await
}

pub(crate) async fn consume_many(redis: &Redis, queues: &[&str], unsettled_max: usize) -> Box<dyn Consumer> {
    let queues = queues.iter().map(|name| queue(name)).collect();
    redis.consume(Consume { queues, name: "test@host".to_owned(), unsettled_max }).await.unwrap()
}

pub(crate) fn room(messages: usize) -> Room {
    Room { messages, bytes: usize::MAX }
}

/// Receives until there are `count`, in as many calls as it takes.
pub(crate) async fn receive(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(within("receive", consumer.receive(room(count - all.len()))).await.unwrap());
    }
    all
}

/// Receives while the lease is kept, by which others are found dead, too.
pub(crate) async fn receive_alive(consumer: &dyn Consumer, count: usize, beat: Duration) -> Vec<Delivery> {
    let mut beat = tokio::time::interval(beat);
    let mut all = Vec::new();
    let receiving = async {
        while all.len() < count {
            tokio::select! {
                came = consumer.receive(room(count - all.len())) => all.extend(came.unwrap()),
                _ = beat.tick() => assert!(consumer.renew().await.unwrap()),
            }
        }
    };
    within("receive", receiving).await;
    all
}

/// Renews until a look at the server says so.
pub(crate) async fn renew_until(
    consumer: &dyn Consumer,
    beat: Duration,
    mut is_so: impl AsyncFnMut() -> bool,
) {
    let mut beat = tokio::time::interval(beat);
    let renewing = async {
        while !is_so().await {
            beat.tick().await;
            assert!(consumer.renew().await.unwrap());
        }
    };
    within("renew", renewing).await;
}

pub(crate) fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    let number =
        |delivery: &Delivery| delivery.message.properties.correlation_id.as_ref().unwrap().parse().unwrap();
    deliveries.iter().map(number).collect()
}

/// Numbers of a consumer must grow; those of all do.
static NUMBER: AtomicU64 = AtomicU64::new(1);

pub(crate) fn batch(commits: Vec<Commit>) -> Batch {
    Batch { number: NUMBER.fetch_add(1, Ordering::Relaxed), commits }
}

pub(crate) fn ends(ending: Ending) -> Commit {
    Commit { records: Vec::new(), publish: Vec::new(), ending }
}

pub(crate) fn settling(deliveries: Vec<Delivery>, how: &Disposition) -> Batch {
    batch(deliveries.into_iter().map(|delivery| ends(Ending::Settle(delivery.settle(how.clone())))).collect())
}

pub(crate) async fn settle(
    consumer: &dyn Consumer,
    deliveries: Vec<Delivery>,
    how: Disposition,
) -> Vec<Committed> {
    within("commit", consumer.commit(&settling(deliveries, &how))).await.unwrap()
}

pub(crate) async fn start(consumer: &dyn Consumer, receipts: &[Receipt]) -> Vec<Committed> {
    let commits = receipts.iter().map(|receipt| ends(Ending::Starting(*receipt))).collect();
    within("commit", consumer.commit(&batch(commits))).await.unwrap()
}

pub(crate) fn reason(kind: &str) -> Reason {
    Reason {
        kind: kind.to_owned(),
        detail: "because".to_owned(),
        worker: "test@host".to_owned(),
        at: Timestamp::from_millis(1_795_000_000_123),
    }
}

/// `unacked` as it is: tag and entry.
pub(crate) async fn unacked(admin: &mut Admin) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = admin.hgetall("unacked").await.unwrap();
    all.sort();
    all
}

pub(crate) async fn list(admin: &mut Admin, key: &str) -> Vec<String> {
    admin.lrange(key, 0, -1).await.unwrap()
}

pub(crate) async fn keys(admin: &mut Admin) -> Vec<String> {
    let mut keys: Vec<String> = admin.keys("*").await.unwrap();
    keys.sort();
    keys
}

/// The server's clock, in seconds.
pub(crate) async fn time(admin: &mut Admin) -> f64 {
    let (seconds, micros): (f64, f64) = redis::cmd("TIME").query_async(admin).await.unwrap();
    seconds + micros / 1e6
}

/// As a kombu worker that took a message and then said nothing for so many seconds.
pub(crate) async fn hold_as_kombu(admin: &mut Admin, tag: &str, entry: &str, age: f64) {
    let since = time(admin).await - age;
    let mut pipe = redis::pipe();
    pipe.atomic().zadd("unacked_index", tag, since).hset("unacked", tag, entry);
    pipe.exec_async(admin).await.unwrap();
}
