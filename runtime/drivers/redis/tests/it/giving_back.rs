//! Giving back what others held: dead rwork workers, silent kombu workers; and kombu workers that give back ours.

use std::time::Duration;

use common::{Server, within};
use redis::AsyncCommands;
use rwork_broker::{Broker, Committed, Consumer, DeadLetterQuery, Disposition, Error, Resumed};
use rwork_redis::{Options, Redis};

use crate::common;
use crate::peers::*;

/// Short, so that its end is soon seen.
const SHORT: Duration = Duration::from_millis(100);

async fn leased(server: &Server, lease: Duration) -> Redis {
    connect(&server.url(), |options| options.lease = lease).await
}

/// In order, marked and not counted, save where a start was written down; nothing of the dead one is left behind but what
/// became of its last batch.
#[tokio::test]
async fn what_a_dead_consumer_held_comes_back() {
    const COUNT: usize = 900;
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = leased(&server, SHORT).await;
    redis.publish_all((0..COUNT).map(|number| to("celery", number)).collect()).await.unwrap();
    let doomed = consume_many(&redis, &["celery"], 2 * COUNT).await;
    let held = receive(&*doomed, COUNT).await;
    let id: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    start(&*doomed, &[held[1].receipt]).await;
    redis.publish_all(vec![to("celery", COUNT)]).await.unwrap();
    drop(doomed);
    let consumer = consume_many(&redis, &["other"], 1).await;
    renew_until(&*consumer, SHORT / 5, async || admin.zcard::<_, u64>("rwork.consumers").await.unwrap() == 1)
        .await;
    let reader = consume_many(&redis, &["celery"], 2 * COUNT).await;
    let came = receive(&*reader, COUNT + 1).await;
    assert_eq!(numbers(&came), (0..=COUNT).collect::<Vec<_>>());
    for (number, delivery) in came.iter().enumerate() {
        let count = if number == 1 { 2 } else { 1 };
        assert_eq!((delivery.redelivered, delivery.delivery_count), (number < COUNT, count), "{number}");
    }
    settle(&*reader, came, Disposition::Ack).await;
    reader.close(&[]).await.unwrap();
    consumer.close(&[]).await.unwrap();
    let hash = format!("rwork.consumer.{}", id[0]);
    let all = keys(&mut admin).await;
    let rwork: Vec<&String> = all.iter().filter(|key| key.starts_with("rwork.")).collect();
    assert_eq!(rwork, [&hash, "rwork.incarnation"]);
    assert!(admin.ttl::<_, i64>(&hash).await.unwrap() > 3600);
}

/// Whatever the server's clock says, and however late a renewal comes: who renews lives.
#[tokio::test]
async fn who_renews_lives() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let (one, two) = (leased(&server, Duration::from_secs(10)).await, leased(&server, SHORT).await);
    one.publish_all(vec![to("celery", 0)]).await.unwrap();
    let held = consume(&one, &["celery"]).await;
    let came = receive(&*held, 1).await;
    let mine: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    let observer = consume(&two, &["other"]).await;
    let mut beat = tokio::time::interval(SHORT / 5);
    for _ in 0..30 {
        // To the server's clock its lease has run out long ago.
        let _: u64 = admin.zadd("rwork.consumers", &mine[0], 1).await.unwrap();
        assert!(held.renew().await.unwrap());
        beat.tick().await;
        assert!(observer.renew().await.unwrap());
    }
    assert_eq!(settle(&*held, came, Disposition::Ack).await, [Committed::Done]);
}

/// Renews. What is not answered in time is asked again at the next beat; only the store's word ends anything.
async fn renews(consumer: &dyn Consumer) {
    match within("renew", consumer.renew()).await {
        Ok(stands) => assert!(stands),
        Err(error) => assert!(matches!(error, Error::Unreachable { .. }), "{error}"),
    }
}

/// A server that sleeps longer than a lease, or lets nobody in, makes nobody dead: nor does an observer that slept.
#[tokio::test]
async fn a_server_that_sleeps_makes_nobody_dead() {
    let server = Server::with(&["--enable-debug-command", "yes"]);
    let redis = leased(&server, SHORT).await;
    redis.publish_all(vec![to("celery", 0)]).await.unwrap();
    let held = consume(&redis, &["celery"]).await;
    let came = receive(&*held, 1).await;
    let observer = consume(&leased(&server, SHORT).await, &["other"]).await;
    let sleeps = [
        redis::cmd("DEBUG").arg(&["SLEEP", "0.5"]).to_owned(),
        redis::cmd("CLIENT").arg(&["PAUSE", "500"]).to_owned(),
    ];
    for sleep in sleeps {
        let mut admin = server.admin().await;
        let sleeping = tokio::spawn(async move { sleep.exec_async(&mut admin).await });
        let mut beat = tokio::time::interval(SHORT / 5);
        for _ in 0..40 {
            beat.tick().await;
            // The observer asks first, so that it sees the old counter after the sleep.
            renews(&*observer).await;
            renews(&*held).await;
        }
        sleeping.await.unwrap().unwrap();
    }
    assert_eq!(settle(&*held, came, Disposition::Ack).await, [Committed::Done]);
}

/// Two workers find the same dead one at the same time.
#[tokio::test]
async fn several_may_recover_at_once() {
    const COUNT: usize = 2500;
    let server = Server::start();
    let mut admin = server.admin().await;
    let doomed = leased(&server, SHORT).await;
    doomed.publish_all((0..COUNT).map(|number| to("celery", number)).collect()).await.unwrap();
    let consumer = consume_many(&doomed, &["celery"], COUNT).await;
    receive(&*consumer, COUNT).await;
    let (one, two) = (leased(&server, SHORT).await, leased(&server, SHORT).await);
    let (left, right) = (consume(&one, &["other"]).await, consume(&two, &["other"]).await);
    let mut beat = tokio::time::interval(SHORT / 5);
    // Both renew until the one that says nothing is gone.
    while admin.zcard::<_, u64>("rwork.consumers").await.unwrap() > 2 {
        beat.tick().await;
        let (one, two) = tokio::join!(left.renew(), right.renew());
        assert!(one.unwrap() && two.unwrap());
    }
    assert_eq!(admin.llen::<_, usize>("celery").await.unwrap(), COUNT);
    let reader = consume_many(&leased(&server, Duration::from_secs(10)).await, &["celery"], COUNT).await;
    let came = receive(&*reader, COUNT).await;
    assert!(came.iter().all(|delivery| delivery.redelivered && delivery.delivery_count == 1));
    let mut all = numbers(&came);
    all.sort_unstable();
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
}

/// Whoever was reaped has lost everything, and changes nothing.
#[tokio::test]
async fn a_reaped_consumer_can_do_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let late = leased(&server, SHORT).await;
    late.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let sleeping = consume(&late, &["celery"]).await;
    let lost = receive(&*sleeping, 1).await;
    let quick = consume(&leased(&server, SHORT).await, &["celery"]).await;
    let came = receive_alive(&*quick, 2, SHORT / 5).await;
    let mut all = numbers(&came);
    all.sort_unstable();
    assert_eq!(all, [0, 1]);
    let before = unacked(&mut admin).await;
    for how in [Disposition::Ack, Disposition::Requeue, Disposition::DeadLetter(reason("x"))] {
        // Its line is its own: what has a receipt is lost, and nothing is changed.
        assert_eq!(sleeping.commit(&settling(lost.clone(), &how)).await.unwrap(), [Committed::Lost]);
    }
    assert!(matches!(sleeping.receive(room(1)).await, Err(Error::LeaseLost { .. })));
    assert!(!sleeping.renew().await.unwrap());
    assert_eq!(sleeping.resume().await.unwrap(), Resumed::Dead);
    sleeping.close(&[]).await.unwrap();
    assert_eq!(unacked(&mut admin).await, before);
    assert_eq!(list(&mut admin, "celery").await, [""; 0]);
}

/// A process of this machine that is gone is dead at once, however long its lease.
#[tokio::test]
async fn who_is_gone_from_this_machine_is_dead_at_once() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = leased(&server, Duration::from_secs(10)).await;
    redis.publish_all(vec![to("celery", 0)]).await.unwrap();
    let doomed = consume(&redis, &["celery"]).await;
    receive(&*doomed, 1).await;
    let ids: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    let hash = format!("rwork.consumer.{}", ids[0]);
    let process: String = admin.hget(&hash, "process").await.unwrap();
    // As if another process had had our number before us.
    let _: () = admin.hset(&hash, "process", format!("{process}0")).await.unwrap();
    let now = time(&mut admin).await * 1000.0;
    let _: () = admin.zadd("rwork.consumers", &ids[0], now + 7900.0).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    assert!(consumer.renew().await.unwrap());
    let came = receive(&*consumer, 1).await;
    assert_eq!((came[0].redelivered, came[0].delivery_count), (true, 1));
}

/// kombu's rule, the one way: what a Python worker left behind comes back after its timeout, through the bindings.
#[tokio::test]
async fn what_kombu_left_behind_is_restored() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let entry = |number: usize, tag: &str, exchange: &str, key: &str| {
        format!(r#"[{}, "{exchange}", "{key}"]"#, envelope(number, "celery", tag))
    };
    hold_as_kombu(&mut admin, "b", &entry(2, "b", "", "celery"), 11.0).await;
    hold_as_kombu(&mut admin, "a", &entry(1, "a", "named", "key"), 12.0).await;
    hold_as_kombu(&mut admin, "young", &entry(3, "young", "", "celery"), 5.0).await;
    hold_as_kombu(&mut admin, "nowhere", &entry(4, "nowhere", "named", "no such key"), 13.0).await;
    hold_as_kombu(&mut admin, "broken", "not an entry", 13.0).await;
    let _: () = admin.zadd("unacked_index", "index only", 1.0).await.unwrap();
    let _: () = admin.sadd("_kombu.binding.named", "key\x06\x16\x06\x16celery").await.unwrap();
    let patient = |url: String| async move {
        connect(&url, |options| options.transport.visibility_timeout = Duration::from_secs(10)).await
    };
    // One at a time: while somebody else has the right to restore, nothing happens.
    let _: () = admin.set("unacked_mutex", "somebody").await.unwrap();
    let first = consume(&patient(server.url()).await, &["celery"]).await;
    assert_eq!(unacked(&mut admin).await.len(), 5);
    assert_eq!(admin.get::<_, String>("unacked_mutex").await.unwrap(), "somebody");
    first.close(&[]).await.unwrap();
    let _: () = admin.del("unacked_mutex").await.unwrap();

    let redis = patient(server.url()).await;
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 2).await;
    within("giving the right back", async {
        while admin.exists::<_, bool>("unacked_mutex").await.unwrap() {}
    })
    .await;
    assert_eq!(numbers(&came), [1, 2], "the oldest first");
    assert!(came.iter().all(|delivery| delivery.redelivered && delivery.delivery_count == 1));
    let held = unacked(&mut admin).await;
    assert_eq!((held.len(), held[2].0.as_str()), (3, "young"));
    let index: Vec<String> = admin.zrange("unacked_index", 0, -1).await.unwrap();
    assert_eq!(index.len(), 3, "{index:?}");
    let letters = redis.dead_letters(DeadLetterQuery::default()).await.unwrap();
    let mut kinds: Vec<_> = letters
        .iter()
        .map(|letter| (&*letter.reason.kind, letter.queue.as_str(), &letter.message.body[..]))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds[0], ("undecodable", "unknown", &b"not an entry"[..]));
    assert_eq!((kinds[1].0, kinds.len()), ("unroutable", 2));
}

/// The other way: what a living rwork worker holds never looks old to a Python worker, however long it takes.
#[tokio::test]
async fn what_lives_never_looks_old() {
    let server = Server::start();
    let mut admin = server.admin().await;
    // Nor to our own looking for what is overdue, which would have it at once.
    let redis = connect(&server.url(), |options| {
        options.transport.visibility_timeout = Duration::from_secs(1 << 40);
    })
    .await;
    redis.publish_all((0..2000).map(|number| to("celery", number)).collect()).await.unwrap();
    let consumer = consume_many(&redis, &["celery"], 5000).await;
    receive(&*consumer, 2000).await;
    let tags: Vec<String> = admin.zrange("unacked_index", 0, -1).await.unwrap();
    assert_eq!(tags.len(), 2000);
    let old: Vec<(f64, &String)> = tags.iter().map(|tag| (1000.0, tag)).collect();
    let _: () = admin.zadd_multiple("unacked_index", &old).await.unwrap();
    // One was settled meanwhile by a peer: it must not come back to life.
    let _: () = admin.zrem("unacked_index", &tags[0]).await.unwrap();
    let before = time(&mut admin).await;
    consumer.renew().await.unwrap();
    let stale: u64 = admin.zcount("unacked_index", "-inf", format!("({before}")).await.unwrap();
    assert_eq!(stale, 0);
    assert_eq!(admin.zcard::<_, u64>("unacked_index").await.unwrap(), 1999);
}

/// A Python worker restored what we hold (we were asleep for long): its copy is another delivery.
#[tokio::test]
async fn what_kombu_restored_of_ours_is_lost_to_us() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let _: () =
        admin.lpush("celery", &[envelope(1, "celery", "one"), envelope(2, "celery", "two")]).await.unwrap();
    let first = receive(&*consumer, 2).await;
    let tag = unacked(&mut admin).await.into_iter().find(|(_, entry)| entry.contains("\"one\"")).unwrap().0;
    let mut pipe = redis::pipe();
    pipe.atomic()
        .zrem("unacked_index", &tag)
        .hdel("unacked", &tag)
        .rpush("celery", envelope(1, "celery", "one"));
    pipe.exec_async(&mut admin).await.unwrap();
    // Back with us, as another delivery.
    let second = receive(&*consumer, 1).await;
    assert_eq!(numbers(&second), [1]);
    assert_eq!(settle(&*consumer, first, Disposition::Ack).await, [Committed::Lost, Committed::Done]);
    assert_eq!(unacked(&mut admin).await.len(), 1, "the later delivery is still held");
    assert_eq!(settle(&*consumer, second.clone(), Disposition::Ack).await, [Committed::Done]);
    assert_eq!(settle(&*consumer, second, Disposition::Requeue).await, [Committed::Lost]);
    assert_eq!(list(&mut admin, "celery").await, [""; 0], "what is not ours is not put back");
    consumer.close(&[]).await.unwrap();
    assert!(!keys(&mut admin).await.iter().any(|key| key.starts_with("unacked")));
}

/// A dead worker of the first edition: its tags are the publisher's, and its score the end of its lease.
#[tokio::test]
async fn a_worker_of_the_first_edition_is_reaped() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let living = consume(&leased(&server, SHORT).await, &["other"]).await;
    let ended = time(&mut admin).await - 1.0;
    let entry = |number: usize, tag: &str| format!(r#"[{}, "", "celery"]"#, envelope(number, "celery", tag));
    hold_as_kombu(&mut admin, "one", &entry(1, "one"), 2.0).await;
    // Restored by kombu, and taken by another since.
    hold_as_kombu(&mut admin, "two", &entry(2, "two"), 0.5).await;
    let _: () = admin.zadd("rwork.consumers", "old", (ended * 1000.0).floor()).await.unwrap();
    let _: () = admin.sadd("rwork.held.old", &["one", "two", "gone"]).await.unwrap();
    renew_until(&*living, SHORT / 5, async || admin.zcard::<_, u64>("rwork.consumers").await.unwrap() == 1)
        .await;
    let back = list(&mut admin, "celery").await;
    assert_eq!(back.len(), 1);
    assert!(back[0].contains(r#""redelivered": true, "delivery_count": 1"#), "{}", back[0]);
    assert_eq!(unacked(&mut admin).await.len(), 1);
}

/// Fault 6: what kombu's worker held for its eta, and a visibility timeout brought back, has not started: it never meets the
/// cap, however often that happens.
#[tokio::test]
async fn what_a_visibility_timeout_restores_is_not_counted() {
    const RESTORES: usize = 8;
    let server = Server::start();
    let mut admin = server.admin().await;
    let mut entry = format!(r#"[{}, "", "celery"]"#, envelope(1, "celery", "eta"));
    for nth in 0..RESTORES {
        hold_as_kombu(&mut admin, "eta", &entry, 11.0).await;
        // A handle of its own, which looks for what is overdue at once.
        let ten_seconds =
            |options: &mut Options| options.transport.visibility_timeout = Duration::from_secs(10);
        let consumer = consume(&connect(&server.url(), ten_seconds).await, &["celery"]).await;
        let came = receive(&*consumer, 1).await;
        assert_eq!((came[0].redelivered, came[0].delivery_count), (true, 1), "{nth}");
        // Another of kombu's workers takes it as it is now.
        entry = unacked(&mut admin).await.remove(0).1;
        assert_eq!(settle(&*consumer, came, Disposition::Ack).await, [Committed::Done]);
        consumer.close(&[]).await.unwrap();
    }
}
