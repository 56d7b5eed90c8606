//! Waiting: the server tells of messages, and a take follows at once.

use std::time::{Duration, SystemTime};

use redis::AsyncCommands;
use rwork_broker::{Broker, Committed, Disposition, Error, Publish};
use rwork_protocol::Timestamp;
use tokio::task::yield_now;

use crate::common::{Server, within};
use crate::peers::*;

/// Until the server watches keys for a consumer: it has found nothing, and waits.
async fn until_one_waits(admin: &mut Admin, keys: u64) {
    let looking = async {
        loop {
            let stats: String = redis::cmd("INFO").arg("stats").query_async(admin).await.unwrap();
            let tracked = stats.lines().find_map(|line| line.strip_prefix("tracking_total_keys:")).unwrap();
            if tracked.parse::<u64>().unwrap() >= keys {
                return;
            }
            yield_now().await;
        }
    };
    within("wait to be told", looking).await;
}

/// Another queue, a step of priority, what is held back: each is told of.
#[tokio::test]
async fn no_list_is_forgotten() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery", "other"]).await;
    for (number, (queue, priority)) in
        [("other", 0), ("celery", 9), ("other", 6), ("celery", 0)].into_iter().enumerate()
    {
        let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
            until_one_waits(&mut admin, 10).await;
            redis.publish_all(vec![with_priority(queue, number, priority)]).await.unwrap();
        });
        assert_eq!(numbers(&came), [number]);
        settle(&*consumer, came, Disposition::Ack).await;
    }
    let now = Timestamp::from_system(SystemTime::now());
    let later = Publish { not_before: Some(now.plus(Duration::from_millis(100))), ..to("celery", 9) };
    redis.publish_all(vec![later]).await.unwrap();
    assert_eq!(numbers(&receive(&*consumer, 1).await), [9]);
}

/// A dead worker whose connection lives on, as when its machine fell.
#[tokio::test]
async fn who_was_reaped_takes_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let (lost, sent) = tokio::join!(within("receive", consumer.receive(room(1))), async {
        until_one_waits(&mut admin, 5).await;
        let ids: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
        let _: () = admin.zadd("rwork.consumers", &ids[0], -1).await.unwrap();
        let sent = [envelope(1, "celery", "tag-1"), envelope(2, "celery", "tag-2")];
        let _: () = admin.lpush("celery", &sent).await.unwrap();
        sent
    });
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    let [first, second] = sent;
    assert_eq!(list(&mut admin, "celery").await, [second, first]);
    assert!(unacked(&mut admin).await.is_empty());
}

/// A worker of the first edition moved messages there before it took them, and died between.
#[tokio::test]
async fn what_the_first_edition_was_taking_is_given_back() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    for number in 1..=3 {
        let _: () = admin.lpush("rwork.taking.celery", envelope(number, "celery", "tag")).await.unwrap();
    }
    let _: () = admin.lpush("celery", envelope(4, "celery", "tag-4")).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    assert!(consumer.renew().await.unwrap());
    assert_eq!(numbers(&receive(&*consumer, 4).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn closing_ends_the_wait() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let (received, ()) = tokio::join!(within("receive", consumer.receive(room(1))), async {
        until_one_waits(&mut admin, 5).await;
        within("close", consumer.close(&[])).await.unwrap();
    });
    assert!(matches!(received, Err(Error::Closed { .. })), "{received:?}");
    let _: () = admin.lpush("celery", "stays").await.unwrap();
    assert_eq!(list(&mut admin, "celery").await, ["stays"]);
}

/// A take goes on when its caller goes away, and what came of it is there for the next one.
#[tokio::test]
async fn a_take_survives_its_caller() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all((0..20).map(|number| to("celery", number)).collect()).await.unwrap();
    let mut all = Vec::new();
    let receiving = async {
        while all.len() < 20 {
            tokio::select! {
                biased;
                came = consumer.receive(room(1)) => all.extend(came.unwrap()),
                () = yield_now() => {}
            }
        }
    };
    within("receive", receiving).await;
    assert_eq!(numbers(&all), (0..20).collect::<Vec<_>>());
    assert_eq!(settle(&*consumer, all, Disposition::Ack).await, vec![Committed::Done; 20]);
    assert!(unacked(&mut admin).await.is_empty());
}

/// A worker with few rights polls, and is complete.
#[tokio::test]
async fn who_may_not_be_told_asks() {
    for missing in ["-client|tracking", "-client|caching"] {
        let server = Server::start();
        let mut admin = server.admin().await;
        let mut user = redis::cmd("ACL");
        user.arg(&["SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", missing]);
        user.exec_async(&mut admin).await.unwrap();
        let url = server.url().replace("redis://", "redis://few:pw@");
        let redis = connect(&url, |_| {}).await;
        let consumer = consume(&redis, &["celery", "other"]).await;
        for (number, queue) in ["other", "celery"].into_iter().enumerate() {
            let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
                for _ in 0..100 {
                    yield_now().await;
                }
                redis.publish_all(vec![to(queue, number)]).await.unwrap();
            });
            assert_eq!(numbers(&came), [number], "{missing}");
            settle(&*consumer, came, Disposition::Ack).await;
        }
    }
}
