//! Waiting at a list: who is idle is handed the message, and nothing is lost where that goes wrong.

use std::time::{Duration, SystemTime};

use redis::AsyncCommands;
use rwork_broker::{Broker, Disposition, Error, Publish, Settled};
use rwork_protocol::Timestamp;
use tokio::task::yield_now;

use crate::common::{Server, within};
use crate::peers::*;

/// Until somebody waits at a list.
async fn until_one_waits(admin: &mut Admin) {
    let looking = async {
        loop {
            let clients: String = redis::cmd("INFO").arg("clients").query_async(admin).await.unwrap();
            if clients.lines().any(|line| line == "blocked_clients:1") {
                return;
            }
            yield_now().await;
        }
    };
    within("wait at a list", looking).await;
}

async fn calls(admin: &mut Admin, command: &str) -> u32 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(admin).await.unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

/// The message is registered when it comes: no second step of ours, in which we could die.
#[tokio::test]
async fn who_waits_is_handed_the_message() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let sent = envelope(7, "celery", "tag-7");
    let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
        until_one_waits(&mut admin).await;
        let before = calls(&mut admin, "client|unblock").await;
        // Within one step of the server's: nothing of ours can have come between.
        let pushed: redis::RedisResult<()> =
            redis::pipe().atomic().lpush("celery", &sent).ignore().exec_async(&mut admin).await;
        pushed.unwrap();
        assert_eq!(unacked(&mut admin).await, [("tag-7".to_owned(), format!(r#"[{sent}, "", "celery"]"#))]);
        assert_eq!(calls(&mut admin, "client|unblock").await, before);
    });
    assert_eq!(numbers(&came), [7]);
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, [Settled::Done]);
    assert!(!keys(&mut admin).await.iter().any(|key| key.starts_with("rwork.taking")));
}

/// What comes elsewhere ends the wait: another queue, a step of priority.
#[tokio::test]
async fn other_lists_are_not_forgotten() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery", "other"]).await;
    for (number, (queue, priority)) in
        [("other", 0), ("celery", 9), ("other", 6), ("celery", 0)].into_iter().enumerate()
    {
        let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
            until_one_waits(&mut admin).await;
            redis.publish(vec![with_priority(queue, number, priority)]).await.unwrap();
        });
        assert_eq!(numbers(&came), [number]);
        settle(&*consumer, came, Disposition::Ack).await;
    }
    // Asked once at the start; at least three came where nobody waited, and one of them may have met a tick of the clock.
    assert!(calls(&mut admin, "client|unblock").await >= 3);
}

/// The server looks at the ends of waits ten times a second; what is due ends one by itself.
#[tokio::test]
async fn what_is_due_ends_the_wait() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let before = calls(&mut admin, "client|unblock").await;
    let now = Timestamp::from_system(SystemTime::now());
    let later = Publish { not_before: Some(now.plus(Duration::from_millis(300))), ..to("celery", 1) };
    redis.publish(vec![later]).await.unwrap();
    assert_eq!(numbers(&receive(&*consumer, 1).await), [1]);
    assert!(calls(&mut admin, "client|unblock").await > before);
}

/// A dead worker whose connection lives on, as when its machine fell: what it is handed goes back at once.
#[tokio::test]
async fn who_lost_the_lease_takes_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let (lost, sent) = tokio::join!(within("receive", consumer.receive(1)), async {
        until_one_waits(&mut admin).await;
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

/// Between the move and the take the server itself may have died.
#[tokio::test]
async fn what_was_moved_and_not_taken_is_taken_by_the_next() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    for number in 1..=6 {
        let _: () = admin.lpush("rwork.taking.celery", envelope(number, "celery", "tag")).await.unwrap();
    }
    let _: () = admin.lpush("celery", envelope(7, "celery", "tag-7")).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    assert_eq!(numbers(&receive(&*consumer, 7).await), [1, 2, 3, 4, 5, 6, 7]);
    consumer.close().await.unwrap();
    assert_eq!(list(&mut admin, "celery").await.len(), 7);

    // One that ends leaves nothing there, for peers that do not know of it.
    let consumer = consume(&redis, &["other"]).await;
    for number in 1..=3 {
        let _: () = admin.lpush("rwork.taking.other", envelope(number, "other", "tag")).await.unwrap();
    }
    let _: () = admin.lpush("other", envelope(4, "other", "tag")).await.unwrap();
    consumer.close().await.unwrap();
    let expect: Vec<_> = (1..=4).rev().map(|number| envelope(number, "other", "tag")).collect();
    assert_eq!(list(&mut admin, "other").await, expect);
    assert!(!keys(&mut admin).await.iter().any(|key| key.starts_with("rwork.taking")));
}

#[tokio::test]
async fn closing_ends_the_wait() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let (received, ()) = tokio::join!(within("receive", consumer.receive(1)), async {
        until_one_waits(&mut admin).await;
        within("close", consumer.close()).await.unwrap();
    });
    assert!(matches!(received, Err(Error::Closed { .. })), "{received:?}");
    assert!(calls(&mut admin, "client|unblock").await >= 2);
    let _: () = admin.lpush("celery", "stays").await.unwrap();
    assert_eq!(list(&mut admin, "celery").await, ["stays"]);
}

/// A wait goes on when its caller goes away, and what came of it is there for the next one.
#[tokio::test]
async fn a_wait_survives_its_caller() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    tokio::select! {
        came = consumer.receive(1) => panic!("{came:?}"),
        () = until_one_waits(&mut admin) => {}
    }
    redis.publish(vec![to("celery", 1)]).await.unwrap();
    assert_eq!(unacked(&mut admin).await.len(), 1);
    assert_eq!(numbers(&receive(&*consumer, 1).await), [1]);
}

/// A worker with few rights is a trip slower, and complete.
#[tokio::test]
async fn who_may_not_wait_is_told() {
    for missing in ["-client|unblock", "-blmove"] {
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
                redis.publish(vec![to(queue, number)]).await.unwrap();
            });
            assert_eq!(numbers(&came), [number], "{missing}");
            settle(&*consumer, came, Disposition::Ack).await;
        }
        assert_eq!(calls(&mut admin, "lmove").await, 0, "{missing}");
    }
}

/// Two that wait are served in turn, a message each: nobody is woken for nothing.
#[tokio::test]
async fn each_message_wakes_one() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumers = [consume(&redis, &["celery"]).await, consume(&redis, &["celery"]).await];
    let (came, ()) =
        tokio::join!(async { tokio::join!(receive(&*consumers[0], 1), receive(&*consumers[1], 1)) }, async {
            let looking = async {
                loop {
                    let clients: String =
                        redis::cmd("INFO").arg("clients").query_async(&mut admin).await.unwrap();
                    if clients.lines().any(|line| line == "blocked_clients:2") {
                        return;
                    }
                    yield_now().await;
                }
            };
            within("wait at a list", looking).await;
            redis.publish(vec![to("celery", 1)]).await.unwrap();
            redis.publish(vec![to("celery", 2)]).await.unwrap();
        },);
    let mut both = [numbers(&came.0), numbers(&came.1)];
    both.sort();
    assert_eq!(both, [[1], [2]]);
}
