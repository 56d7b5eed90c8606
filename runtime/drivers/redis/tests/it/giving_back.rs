//! Giving back what others held: dead rwork workers, silent kombu workers; and kombu workers that give back ours.

use std::time::Duration;

use common::{Server, within};
use redis::AsyncCommands;
use rwork_broker::{Broker, DeadLetterQuery, Disposition, Error, Settled};
use rwork_redis::Redis;

use crate::common;
use crate::peers::*;

/// Short, so that its end is soon seen.
const SHORT: Duration = Duration::from_millis(100);

async fn leased(server: &Server, lease: Duration) -> Redis {
    connect(&server.url(), |options| options.lease = lease).await
}

/// In order, marked, counted, by whoever comes next; nothing of the dead one is left behind.
#[tokio::test]
async fn what_a_lost_consumer_held_comes_back_at_once() {
    const COUNT: usize = 900;
    let server = Server::start();
    let mut admin = server.admin().await;
    // The lease is long: only the handle itself knows that its consumer is gone.
    let redis = leased(&server, Duration::from_secs(10)).await;
    redis.publish((0..COUNT).map(|number| to("celery", number)).collect()).await.unwrap();
    let consumer = consume_many(&redis, &["celery"], 2 * COUNT).await;
    assert_eq!(receive(&*consumer, COUNT).await.len(), COUNT);
    redis.publish(vec![to("celery", COUNT)]).await.unwrap();
    drop(consumer);
    let consumer = consume_many(&redis, &["celery"], 2 * COUNT).await;
    let came = receive(&*consumer, COUNT + 1).await;
    assert_eq!(numbers(&came), (0..=COUNT).collect::<Vec<_>>());
    for (number, delivery) in came.iter().enumerate() {
        // An outage is nobody's outcome: it is not counted.
        assert_eq!((delivery.redelivered, delivery.delivery_count), (number < COUNT, 1), "{number}");
    }
    settle(&*consumer, came, Disposition::Ack).await;
    consumer.close().await.unwrap();
    assert_eq!(keys(&mut admin).await, ["_kombu.binding.celery", "_kombu.binding_permanent.celery"]);
}

/// Who has just come can't know whether the server's clock was put forward, to which everybody's lease has run out.
#[tokio::test]
async fn whoever_has_just_come_ends_no_living_worker() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let lease = Duration::from_secs(10);
    let (one, two) = (leased(&server, lease).await, leased(&server, lease).await);
    one.publish(vec![to("celery", 0)]).await.unwrap();
    let held = consume(&one, &["celery"]).await;
    let came = receive(&*held, 1).await;
    let mine: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    for _ in 0..20 {
        let _: u64 = admin.zadd("rwork.consumers", &mine[0], 1).await.unwrap();
        let newcomer = consume(&two, &["other"]).await;
        // Whatever it has found there is done when it closes.
        newcomer.close().await.unwrap();
        held.renew().await.unwrap();
    }
    settle(&*held, came, Disposition::Ack).await;
}

/// Two workers find the same dead one at the same time.
#[tokio::test]
async fn several_may_recover_at_once() {
    const COUNT: usize = 2500;
    let server = Server::start();
    let mut admin = server.admin().await;
    let doomed = leased(&server, SHORT).await;
    doomed.publish((0..COUNT).map(|number| to("celery", number)).collect()).await.unwrap();
    let consumer = consume_many(&doomed, &["celery"], COUNT).await;
    receive(&*consumer, COUNT).await;
    let (one, two) = (leased(&server, SHORT).await, leased(&server, SHORT).await);
    let (left, right) = (consume(&one, &["other"]).await, consume(&two, &["other"]).await);
    let mut beat = tokio::time::interval(SHORT / 5);
    // Both renew until the one that says nothing is gone.
    while admin.zcard::<_, u64>("rwork.consumers").await.unwrap() > 2 {
        beat.tick().await;
        let (one, two) = tokio::join!(left.renew(), right.renew());
        one.and(two).unwrap();
    }
    assert_eq!(admin.llen::<_, usize>("celery").await.unwrap(), COUNT);
    let reader = consume_many(&leased(&server, Duration::from_secs(10)).await, &["celery"], COUNT).await;
    let came = receive(&*reader, COUNT).await;
    assert!(came.iter().all(|delivery| delivery.delivery_count == 2));
    let mut all = numbers(&came);
    all.sort_unstable();
    assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
}

/// Whoever was fenced has lost everything, and changes nothing.
#[tokio::test]
async fn a_fenced_consumer_can_do_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let late = leased(&server, SHORT).await;
    late.publish((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let sleeping = consume(&late, &["celery"]).await;
    let lost = receive(&*sleeping, 1).await;
    let quick = consume(&leased(&server, SHORT).await, &["celery"]).await;
    let came = receive_alive(&*quick, 2, SHORT / 5).await;
    let mut all = numbers(&came);
    all.sort_unstable();
    assert_eq!(all, [0, 1]);
    let before = unacked(&mut admin).await;
    for how in [Disposition::Ack, Disposition::Requeue, Disposition::DeadLetter(reason("x"))] {
        assert_eq!(settle(&*sleeping, lost.clone(), how).await, [Settled::Lost]);
    }
    assert!(matches!(sleeping.receive(1).await, Err(Error::LeaseLost { .. })));
    assert!(matches!(sleeping.renew().await, Err(Error::LeaseLost { .. })));
    sleeping.close().await.unwrap();
    assert_eq!(unacked(&mut admin).await, before);
    assert_eq!(list(&mut admin, "celery").await, [""; 0]);
}

/// The connection is cut in the middle of it all: consuming again continues at once.
#[tokio::test]
async fn a_cut_connection_loses_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = leased(&server, Duration::from_secs(10)).await;
    let mut consumer = consume(&redis, &["celery"]).await;
    redis.publish((0..30).map(|number| to("celery", number)).collect()).await.unwrap();
    let mut done = Vec::new();
    let mut cuts = 0;
    while done.len() < 30 {
        if cuts < 3 && done.len() / 5 > cuts {
            cuts += 1;
            let kill = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).to_owned();
            let _: i64 = kill.query_async(&mut admin).await.unwrap();
        }
        match within("receive", consumer.receive(3)).await {
            Ok(came) => {
                let numbers = numbers(&came);
                // An ack that fails was done or was not; its message comes again then.
                let batch = came.into_iter().map(|delivery| delivery.settle(Disposition::Ack)).collect();
                if let Ok(settled) = consumer.settle(batch).await {
                    let acked =
                        numbers.into_iter().zip(settled).filter(|(_, settled)| *settled == Settled::Done);
                    done.extend(acked.map(|(number, _)| number));
                }
            }
            Err(Error::Unreachable { .. }) => {
                drop(consumer);
                consumer = consume(&redis, &["celery"]).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    done.sort_unstable();
    assert_eq!(done, (0..30).collect::<Vec<_>>());
    assert_eq!(cuts, 3);
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
    first.close().await.unwrap();
    let _: () = admin.del("unacked_mutex").await.unwrap();

    let redis = patient(server.url()).await;
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 2).await;
    assert_eq!(admin.exists::<_, u64>("unacked_mutex").await.unwrap(), 0);
    assert_eq!(numbers(&came), [1, 2], "the oldest first");
    assert!(came.iter().all(|delivery| delivery.redelivered && delivery.delivery_count == 2));
    let tags: Vec<String> = unacked(&mut admin).await.into_iter().map(|(tag, _)| tag).collect();
    assert_eq!(tags, ["a", "b", "young"]);
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
    let redis = connect(&server.url(), |_| {}).await;
    redis.publish((0..2000).map(|number| to("celery", number)).collect()).await.unwrap();
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
    let mut pipe = redis::pipe();
    pipe.atomic()
        .zrem("unacked_index", "one")
        .hdel("unacked", "one")
        .rpush("celery", envelope(1, "celery", "one"));
    pipe.exec_async(&mut admin).await.unwrap();
    // Back with us, by the same tag.
    let second = receive(&*consumer, 1).await;
    assert_eq!(numbers(&second), [1]);
    assert_eq!(settle(&*consumer, first, Disposition::Ack).await, [Settled::Lost, Settled::Done]);
    assert_eq!(unacked(&mut admin).await.len(), 1, "the later delivery is still held");
    assert_eq!(settle(&*consumer, second.clone(), Disposition::Ack).await, [Settled::Done]);
    assert_eq!(settle(&*consumer, second, Disposition::Requeue).await, [Settled::Lost]);

    // Restored and taken by the peer: it is settled by the tag, as kombu does, and its own later ack does nothing.
    let _: () = admin.lpush("celery", envelope(3, "celery", "three")).await.unwrap();
    let third = receive(&*consumer, 1).await;
    let mut pipe = redis::pipe();
    pipe.atomic().zrem("unacked_index", "three").hdel("unacked", "three");
    pipe.exec_async(&mut admin).await.unwrap();
    assert_eq!(settle(&*consumer, third, Disposition::Requeue).await, [Settled::Lost]);
    assert_eq!(list(&mut admin, "celery").await, [""; 0], "what is not ours is not put back");
    consumer.close().await.unwrap();
    assert!(keys(&mut admin).await.iter().all(|key| key.starts_with("_kombu")));
}

/// A message of a dead worker that kombu restored and another worker took is the other's.
#[tokio::test]
async fn a_dead_consumers_tag_that_lives_elsewhere_is_left_alone() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let living = consume(&leased(&server, Duration::from_secs(10)).await, &["celery"]).await;
    let doomed = consume(&leased(&server, SHORT).await, &["celery"]).await;
    let _: () =
        admin.lpush("celery", &[envelope(1, "celery", "one"), envelope(2, "celery", "two")]).await.unwrap();
    assert_eq!(numbers(&receive(&*doomed, 2).await), [1, 2]);
    let leases: Vec<(String, f64)> = admin.zrange_withscores("rwork.consumers", 0, -1).await.unwrap();
    let until = leases.iter().map(|(_, until)| *until).fold(f64::MAX, f64::min);
    let mut beat = tokio::time::interval(SHORT / 10);
    while time(&mut admin).await * 1000.0 <= until + 2.0 {
        beat.tick().await;
    }
    let mut pipe = redis::pipe();
    pipe.atomic()
        .zrem("unacked_index", "one")
        .hdel("unacked", "one")
        .rpush("celery", envelope(1, "celery", "one"));
    pipe.exec_async(&mut admin).await.unwrap();
    let held = receive(&*living, 1).await;
    // Now the dead one is found: its second message comes back, the first one does not.
    while admin.zcard::<_, u64>("rwork.consumers").await.unwrap() > 1 {
        beat.tick().await;
        living.renew().await.unwrap();
    }
    let came = receive(&*living, 1).await;
    assert_eq!((numbers(&came), came[0].delivery_count), (vec![2], 2));
    assert_eq!(settle(&*living, held, Disposition::Ack).await, [Settled::Done]);
    assert_eq!(settle(&*living, came, Disposition::Ack).await, [Settled::Done]);
    drop(doomed);
}
