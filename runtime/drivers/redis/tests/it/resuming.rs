//! Lost lines, lost answers, lost data: what a consumer is told when it makes its line again.

use redis::AsyncCommands;
use rwork_broker::{Broker, Commit, Committed, Consumer, Disposition, Ending, Error, Resumed};
use rwork_redis::Redis;
use tokio::task::yield_now;

use crate::common::{Server, within};
use crate::peers::*;
use crate::proxy::Proxy;

/// Bytes of a take: how many it may take.
const TAKE: &[u8] = b"$8\r\n16777216\r\n";
/// Bytes of a commit that acks.
const ACK: &[u8] = b"$3\r\nack\r\n";

async fn cut_off(consumer: &dyn Consumer) {
    let error = within("receive", consumer.receive(room(10))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

async fn kill_all_connections(admin: &mut Admin) {
    let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).to_owned();
    kill.exec_async(admin).await.unwrap();
}

async fn behind_a_proxy(server: &Server) -> (Proxy, Redis, Box<dyn Consumer>) {
    let proxy = Proxy::to(server.port).await;
    let redis = connect(&proxy.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    // The server must know the scripts: otherwise the answer that is lost says that it does not.
    redis.publish_all(vec![to("celery", 0)]).await.unwrap();
    let came = receive(&*consumer, 1).await;
    settle(&*consumer, came, Disposition::Ack).await;
    (proxy, redis, consumer)
}

/// What is held stays held, and is not handed over again.
#[tokio::test]
async fn a_lost_line_loses_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all((0..5).map(|number| to("celery", number)).collect()).await.unwrap();
    let came = receive(&*consumer, 3).await;
    for _ in 0..3 {
        kill_all_connections(&mut admin).await;
        cut_off(&*consumer).await;
        assert_eq!(consumer.resume().await.unwrap(), Resumed::Stands { fresh: vec![], gone: vec![] });
        assert!(consumer.renew().await.unwrap_or(true));
    }
    let more = receive(&*consumer, 2).await;
    assert_eq!(numbers(&more), [3, 4]);
    assert!(more.iter().all(|delivery| !delivery.redelivered));
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, vec![Committed::Done; 3]);
    assert_eq!(settle(&*consumer, more, Disposition::Ack).await, vec![Committed::Done; 2]);
    assert!(unacked(&mut admin).await.is_empty());
}

#[tokio::test]
async fn the_lost_answer_of_a_take_comes_with_resuming() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let (proxy, redis, consumer) = behind_a_proxy(&server).await;
    redis.publish_all((0..3).map(|number| to("celery", number)).collect()).await.unwrap();
    proxy.lose_answer_to(TAKE);
    let losing = async {
        while unacked(&mut admin).await.len() < 3 {
            yield_now().await;
        }
        assert!(proxy.has_lost());
        proxy.cut();
    };
    tokio::join!(cut_off(&*consumer), within("take", losing));
    let Resumed::Stands { fresh, gone } = consumer.resume().await.unwrap() else { panic!("it stands") };
    assert_eq!((numbers(&fresh), gone), (vec![0, 1, 2], vec![]));
    assert!(fresh.iter().all(|delivery| !delivery.redelivered && delivery.queue == queue("celery")));
    redis.publish_all(vec![to("celery", 3)]).await.unwrap();
    let more = receive(&*consumer, 1).await;
    assert_eq!(numbers(&more), [3]);
    assert_eq!(settle(&*consumer, fresh, Disposition::Ack).await, vec![Committed::Done; 3]);
    assert_eq!(settle(&*consumer, more, Disposition::Ack).await, [Committed::Done]);
}

/// Done or not: the same batch again has the same answers, and nothing is done twice.
#[tokio::test]
async fn the_lost_answer_of_a_commit_is_given_again() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let (proxy, redis, consumer) = behind_a_proxy(&server).await;
    redis.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let mut came = receive(&*consumer, 2).await;
    let _: () = admin.set("bad", "a string").await.unwrap();
    let first = came.remove(0);
    let receipt = first.receipt;
    let batch = batch(vec![
        Commit { publish: vec![to("next", 7)], ..ends(Ending::Settle(first.settle(Disposition::Ack))) },
        Commit { publish: vec![to("bad", 8)], ..ends(Ending::Unfenced) },
        Commit { publish: vec![to("next", 9)], ..ends(Ending::Unfenced) },
    ]);
    proxy.lose_answer_to(ACK);
    let losing = async {
        while admin.llen::<_, u64>("next").await.unwrap() < 2 {
            yield_now().await;
        }
        proxy.cut();
    };
    let (lost, ()) = tokio::join!(within("commit", consumer.commit(&batch)), within("commit", losing));
    assert!(matches!(lost, Err(Error::Unreachable { .. })), "{lost:?}");
    let resumed = consumer.resume().await.unwrap();
    assert_eq!(resumed, Resumed::Stands { fresh: vec![], gone: vec![receipt] });
    // What refused may accept by now: the answer stays.
    let _: () = admin.del("bad").await.unwrap();
    for _ in 0..2 {
        let answers = within("commit", consumer.commit(&batch)).await.unwrap();
        assert!(
            matches!(&answers[..], [Committed::Done, Committed::Refused(_), Committed::Done]),
            "{answers:?}"
        );
    }
    assert_eq!(list(&mut admin, "next").await.len(), 2);
    let mut lower = settling(came.clone(), &Disposition::Ack);
    lower.number = batch.number - 1;
    let refused = consumer.commit(&lower).await;
    assert!(matches!(refused, Err(Error::LeaseLost { .. })), "{refused:?}");
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, [Committed::Done]);
}

/// A copy of this process resumed first, or an old call came late.
#[tokio::test]
async fn a_stale_token_changes_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let came = receive(&*consumer, 1).await;
    let ids: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    let _: () = admin.hset(format!("rwork.consumer.{}", ids[0]), "token", "another").await.unwrap();
    let before = unacked(&mut admin).await;
    let refused = consumer.commit(&settling(came, &Disposition::Ack)).await;
    assert!(matches!(refused, Err(Error::LeaseLost { .. })), "{refused:?}");
    let refused = within("receive", consumer.receive(room(1))).await;
    assert!(matches!(refused, Err(Error::LeaseLost { .. })), "{refused:?}");
    assert!(!consumer.renew().await.unwrap());
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Dead);
    consumer.close(&[]).await.unwrap();
    assert_eq!(unacked(&mut admin).await, before);
    assert_eq!(admin.zcard::<_, u64>("rwork.consumers").await.unwrap(), 1, "the other one lives");
}

#[tokio::test]
async fn a_store_that_lost_everything_has_forgotten_us() {
    let mut server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all(vec![to("celery", 0)]).await.unwrap();
    let came = receive(&*consumer, 1).await;
    redis::cmd("FLUSHALL").exec_async(&mut admin).await.unwrap();
    assert!(!consumer.renew().await.unwrap());
    let refused = consumer.commit(&settling(came, &Disposition::Ack)).await;
    assert!(matches!(refused, Err(Error::LeaseLost { .. })), "{refused:?}");
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Forgotten);
    // Somebody has begun there anew.
    let other = consume(&redis, &["celery"]).await;
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Forgotten);
    drop(consumer);
    server.kill();
    cut_off(&*other).await;
    other.resume().await.unwrap_err();
    server.restart();
    assert_eq!(other.resume().await.unwrap(), Resumed::Forgotten);
}

#[tokio::test]
async fn a_restart_with_its_data_is_a_lost_line() {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all(vec![to("celery", 0)]).await.unwrap();
    let came = receive(&*consumer, 1).await;
    server.kill();
    cut_off(&*consumer).await;
    let failed = consumer.commit(&settling(came.clone(), &Disposition::Ack)).await;
    assert!(matches!(failed, Err(Error::Unreachable { .. })), "{failed:?}");
    server.restart();
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Stands { fresh: vec![], gone: vec![] });
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, [Committed::Done]);
}

/// A fail-over to a replica that was behind: what we had committed is ours again, what we took is in its list again.
#[tokio::test]
async fn a_store_that_went_back_tells_what_is_ours() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let old = receive(&*consumer, 1).await;
    let (entry, ids) =
        (unacked(&mut admin).await.remove(0), admin.zrange("rwork.consumers", 0, -1).await.unwrap());
    let (hash, held) = {
        let ids: Vec<String> = ids;
        (format!("rwork.consumer.{}", ids[0]), format!("rwork.held.{}", ids[0]))
    };
    let young = receive(&*consumer, 1).await;
    settle(&*consumer, old, Disposition::Ack).await;
    // As it was before the second was taken.
    let back = list(&mut admin, "celery").await;
    assert!(back.is_empty());
    let tag = unacked(&mut admin).await.remove(0).0;
    // Too young for the look for what is overdue, with which each consumer begins.
    let now = time(&mut admin).await;
    let mut pipe = redis::pipe();
    pipe.atomic()
        .del(&["unacked", "unacked_index", &held])
        .hset("unacked", &entry.0, &entry.1)
        .zadd("unacked_index", &entry.0, now)
        .sadd(&held, &entry.0)
        .hset(&hash, "taken", 1)
        .hdel(&hash, &["number", "answers"]);
    pipe.exec_async(&mut admin).await.unwrap();
    let _: () = admin.rpush("celery", envelope(1, "celery", "x")).await.unwrap();
    let Resumed::Stands { fresh, gone } = consumer.resume().await.unwrap() else { panic!("it stands") };
    assert_eq!((numbers(&fresh), gone), (vec![0], vec![young[0].receipt]));
    let again = receive(&*consumer, 1).await;
    assert_eq!(numbers(&again), [1]);
    assert!(unacked(&mut admin).await.iter().all(|(other, _)| *other != tag), "no tag means two takings");
    assert_eq!(settle(&*consumer, young, Disposition::Ack).await, [Committed::Lost]);
    assert_eq!(settle(&*consumer, fresh, Disposition::Ack).await, [Committed::Done]);
    assert_eq!(settle(&*consumer, again, Disposition::Ack).await, [Committed::Done]);
}

/// More or fewer than we know of: resuming says which.
#[tokio::test]
async fn a_number_that_cannot_be_explained_is_told() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    assert!(consumer.renew().await.unwrap());
    let ids: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    let tag = format!("{}:99", ids[0]);
    hold_as_kombu(&mut admin, &tag, &format!(r#"[{}, "", "celery"]"#, envelope(1, "celery", "x")), 0.0).await;
    let _: () = admin.sadd(format!("rwork.held.{}", ids[0]), &tag).await.unwrap();
    assert!(consumer.renew().await.unwrap(), "something may have been on its way");
    assert!(!consumer.renew().await.unwrap());
    let Resumed::Stands { fresh, .. } = consumer.resume().await.unwrap() else { panic!("it stands") };
    assert_eq!(numbers(&fresh), [1]);
    assert!(consumer.renew().await.unwrap());
    settle(&*consumer, fresh, Disposition::Ack).await;
    assert!(consumer.renew().await.unwrap() && consumer.renew().await.unwrap());
}
