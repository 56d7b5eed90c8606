//! Numbers of messages, wherever they wait, and emptying queues.

use redis::aio::MultiplexedConnection;
use rwork_broker::{Broker, QueueInfo};
use rwork_protocol::QueueName;
use rwork_redis::Redis;

use crate::common::{Server, broker};

fn name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

async fn eval(admin: &mut MultiplexedConnection, script: &str) {
    redis::cmd("EVAL").arg(script).arg(0).exec_async(admin).await.unwrap();
}

async fn info(redis: &Redis, queue: &str) -> QueueInfo {
    let infos = redis.queues().await.unwrap();
    infos.into_iter().find(|info| info.name.as_str() == queue).unwrap()
}

#[tokio::test]
async fn what_a_worker_of_the_first_edition_was_taking_counts() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    // The queue is known by nothing else.
    eval(&mut admin, "for i = 1, 3 do redis.call('LPUSH', 'rwork.taking.old', 'x') end").await;
    assert_eq!(info(&redis, "old").await.ready, 3);
    eval(&mut admin, "redis.call('LPUSH', 'old', 'x') redis.call('LPUSH', 'old\\6\\0229', 'x')").await;
    assert_eq!(info(&redis, "old").await.ready, 5);
    assert_eq!(redis.purge(&name("old")).await.unwrap(), 5);
    assert_eq!(redis.queues().await.unwrap(), []);
}

#[tokio::test]
async fn few_held_messages_are_counted_and_many_estimated() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let hold = |from: u32, to: u32| {
        format!(
            "for i = {from}, {to} do
               local queue = i % 4 == 0 and 'b' or 'a'
               redis.call('HSET', 'unacked', 't' .. i, '[{{\"body\": \"' .. string.rep('x', 500) .. '\"}}, \"\", \"' .. queue .. '\"]')
             end"
        )
    };
    eval(&mut admin, &hold(1, 4000)).await;
    assert_eq!(info(&redis, "a").await.unsettled, 3000);
    assert_eq!(info(&redis, "b").await.unsettled, 1000);
    eval(&mut admin, &hold(4001, 100_000)).await;
    let (a, b) = (info(&redis, "a").await.unsettled, info(&redis, "b").await.unsettled);
    assert!(
        (22_000..=28_000).contains(&b) && (72_000..=78_000).contains(&a),
        "{a} and {b} of 75000 and 25000"
    );
}

#[tokio::test]
async fn thousands_of_queues_are_listed() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let bind = "for i = 1, 3000 do
                  redis.call('SADD', '_kombu.binding.q' .. i, 'q' .. i .. '\\6\\022\\6\\022q' .. i)
                  redis.call('LPUSH', 'q' .. i, 'x')
                end";
    eval(&mut admin, bind).await;
    let infos = redis.queues().await.unwrap();
    assert_eq!(infos.len(), 3000);
    assert!(infos.iter().all(|info| info.ready == 1 && info.unsettled == 0));
}
