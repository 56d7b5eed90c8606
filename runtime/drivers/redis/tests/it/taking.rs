//! Taking and settling: what stands in which key, and what comes in which order.

use std::time::Duration;

use bytes::Bytes;
use redis::AsyncCommands;
use rwork_broker::{Broker, Committed, Consume, DeadLetterQuery, Disposition, Error};
use rwork_redis::QueueOrder;

use crate::common::{Server, within};
use crate::peers::*;

/// Checklist 21: an entry from pop until ack, that kombu can restore.
#[tokio::test]
async fn what_is_held_stands_in_unacked() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let sent = envelope(7, "celery", "tag-7");
    let _: () = admin.lpush("celery", &sent).await.unwrap();
    let came = receive(&*consumer, 1).await;
    let ids: Vec<String> = admin.zrange("rwork.consumers", 0, -1).await.unwrap();
    // Its own tag, never the publisher's: it never means another taking.
    let tag = format!("{}:1", ids[0]);
    assert_eq!(unacked(&mut admin).await, [(tag.clone(), format!(r#"[{sent}, "", "celery"]"#))]);
    let score: f64 = admin.zscore("unacked_index", &tag).await.unwrap();
    assert!((time(&mut admin).await - score).abs() < 10.0, "{score}");
    let (hash, held) = (format!("rwork.consumer.{}", ids[0]), format!("rwork.held.{}", ids[0]));
    assert_eq!(admin.smembers::<_, Vec<String>>(&held).await.unwrap(), [tag]);
    // Nothing that ownership depends on goes away by itself.
    for key in ["rwork.consumers", "rwork.incarnation", "unacked", "unacked_index", &held, &hash] {
        assert_eq!(admin.ttl::<_, i64>(key).await.unwrap(), -1, "{key}");
    }
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, [Committed::Done]);
    let bindings = ["_kombu.binding.celery", "_kombu.binding_permanent.celery"];
    let stay = [bindings[0], bindings[1], &hash, "rwork.consumers", "rwork.incarnation"];
    assert_eq!(keys(&mut admin).await, stay);
    let bound: Vec<String> = admin.smembers(bindings[0]).await.unwrap();
    assert_eq!(bound, ["celery\x06\x16\x06\x16celery"]);
    consumer.close(&[]).await.unwrap();
    assert_eq!(keys(&mut admin).await, [bindings[0], bindings[1], "rwork.incarnation"]);
}

/// Checklist 26: back at the right end, in order, byte for byte; marked only where it may have begun.
#[tokio::test]
async fn what_is_given_back_is_kombus_byte_for_byte() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let sent = |number: usize| envelope(number, "celery", &format!("tag-{number}"));
    for number in 0..4 {
        let _: () = admin.lpush("celery", sent(number)).await.unwrap();
    }
    let came = receive(&*consumer, 3).await;
    assert_eq!(numbers(&came), [0, 1, 2]);
    consumer.close(&[came[1].receipt]).await.unwrap();
    let marked = |number: usize, count: usize| {
        sent(number).replace(r#""task": "t"}"#, r#""task": "t", "redelivered": true}"#).replace(
            r#""celery"}"#,
            &format!(r#""celery", "redelivered": true, "delivery_count": {count}}}"#),
        )
    };
    // The right end is served first.
    assert_eq!(list(&mut admin, "celery").await, [sent(3), sent(2), marked(1, 1), sent(0)]);
    let again = consume(&redis, &["celery"]).await;
    let came = receive(&*again, 2).await;
    assert!(!came[0].redelivered && came[1].redelivered && came[1].delivery_count == 1);
    settle(&*again, came, Disposition::Requeue).await;
    assert_eq!(list(&mut admin, "celery").await, [marked(1, 2), marked(0, 2), sent(3), sent(2)]);
    // A start that was written down counts, once.
    let came = receive(&*again, 4).await;
    let (suspect, count) = (came[3].receipt, came[3].delivery_count);
    assert_eq!((numbers(&came)[3], count), (1, 2));
    assert_eq!(start(&*again, &[suspect, suspect]).await, [Committed::Done, Committed::Done]);
    again.close(&[suspect]).await.unwrap();
    assert_eq!(list(&mut admin, "celery").await, [marked(1, 3), marked(0, 2), sent(3), sent(2)]);
}

#[tokio::test]
async fn what_is_no_message_becomes_a_dead_letter() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let bad: [&[u8]; 4] = [b"garbage", b"{\"body\": 5}", b"\xff\x00", b"[1, \"\", \"x\"]"];
    for element in bad {
        let _: () = admin.lpush("celery", element).await.unwrap();
    }
    let _: () = admin.lpush("celery", envelope(1, "celery", "t")).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 1).await;
    assert_eq!(numbers(&came), [1]);
    settle(&*consumer, came, Disposition::Ack).await;
    let letters = redis.dead_letters(DeadLetterQuery::default()).await.unwrap();
    assert_eq!(letters.len(), bad.len());
    for (letter, element) in letters.iter().zip(bad) {
        assert_eq!(letter.message.body, Bytes::from_static(element));
        assert_eq!((letter.queue.as_str(), &*letter.reason.kind), ("celery", "undecodable"));
        assert_eq!(letter.reason.worker, "test@host");
    }
    assert_eq!(unacked(&mut admin).await, []);
    // Retried it is no better.
    assert_eq!(redis.retry_dead_letters(DeadLetterQuery::default()).await.unwrap(), 4);
    redis.publish_all(vec![to("celery", 2)]).await.unwrap();
    assert_eq!(numbers(&receive(&*consumer, 1).await), [2]);
    let again = redis.dead_letters(DeadLetterQuery::default()).await.unwrap();
    assert_eq!(again.iter().map(|letter| &letter.message.body[..]).collect::<Vec<_>>(), bad);
    assert_eq!(redis.purge_dead_letters(DeadLetterQuery::default()).await.unwrap(), 4);
    assert!(keys(&mut admin).await.iter().all(|key| !key.starts_with("rwork.dead")));
}

#[tokio::test]
async fn one_tag_may_be_there_often() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let same = envelope(1, "a", "same");
    let _: () = admin.lpush("a", &[&same, &same]).await.unwrap();
    let _: () = admin.lpush("b", &same).await.unwrap();
    let tagless = same.replace(r#", "delivery_tag": "same""#, "");
    let odd = same.replace(r#""delivery_tag": "same""#, r#""delivery_tag" :"odd", "x": 1"#);
    let escaped = same.replace("\"same\"", r#""a\"b""#);
    let number = same.replace("\"same\"", "17");
    let _: () = admin.lpush("b", &[&tagless, &odd, &escaped, &number]).await.unwrap();
    let consumer = consume(&redis, &["a", "b"]).await;
    let mut came = receive(&*consumer, 7).await;
    let held = unacked(&mut admin).await;
    assert_eq!(held.len(), 7, "{held:?}");
    for (_, entry) in &held {
        let back = if entry.ends_with(r#", "", "a"]"#) { 'a' } else { 'b' };
        assert!(entry.ends_with(&format!(r#", "", "{back}"]"#)), "{entry}");
    }
    assert_eq!(held.iter().filter(|(_, entry)| entry.contains(&same)).count(), 3);
    // Each is settled by itself.
    let rest = came.split_off(4);
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, vec![Committed::Done; 4]);
    assert_eq!(unacked(&mut admin).await.len(), 3);
    assert_eq!(settle(&*consumer, rest, Disposition::Release).await, vec![Committed::Done; 3]);
    assert_eq!(unacked(&mut admin).await, []);
    assert_eq!(admin.zcard::<_, u64>("unacked_index").await.unwrap(), 0);
    assert_eq!(receive(&*consumer, 3).await.len(), 3);
}

/// Checklist 24, and Celery's other strategies.
#[tokio::test]
async fn queues_are_served_in_the_order_of_their_strategy() {
    let server = Server::start();
    for (strategy, expect) in [
        // They share; all lists of step 0 come before any of step 3.
        (QueueOrder::RoundRobin, [0, 1, 10, 11, 12, 13, 2, 3, 4, 14, 15, 16, 20, 21]),
        (QueueOrder::Sorted, [10, 11, 12, 13, 14, 15, 16, 0, 1, 2, 3, 4, 21, 20]),
        (QueueOrder::Priority, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 20, 21]),
    ] {
        let redis = connect(&server.url(), |options| {
            options.transport.queue_order_strategy = strategy;
            options.transport.global_keyprefix = format!("{strategy:?}.");
        })
        .await;
        let consumer = consume(&redis, &["zoo", "ape"]).await;
        let mut batch = vec![with_priority("zoo", 20, 5), with_priority("ape", 21, 3)];
        batch.extend((0..5).map(|number| to("zoo", number)));
        batch.extend((10..17).map(|number| to("ape", number)));
        redis.publish_all(batch).await.unwrap();
        let mut came = receive(&*consumer, 4).await;
        came.extend(receive(&*consumer, 5).await);
        came.extend(receive(&*consumer, 5).await);
        let found = numbers(&came);
        if strategy == QueueOrder::RoundRobin {
            assert_eq!(found[..4], [0, 1, 10, 11], "{found:?}");
            let (mut zoo, mut ape): (Vec<usize>, Vec<usize>) =
                found[..12].iter().partition(|number| **number < 10);
            (zoo, ape) = (zoo, ape);
            assert!(zoo.is_sorted() && ape.is_sorted(), "{found:?}");
            assert_eq!(found[12..].iter().sum::<usize>(), 41, "step 3 came before step 0: {found:?}");
        } else {
            assert_eq!(found, expect, "{strategy:?}");
        }
    }
}

/// Checklist 28 and 30.
#[tokio::test]
async fn every_key_has_the_prefix_and_the_configured_names() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |options| {
        for (name, value) in [
            ("global_keyprefix", "pfx:"),
            ("sep", ":"),
            ("priority_steps", "0,4"),
            ("unacked_key", "u"),
            ("unacked_index_key", "ui"),
        ] {
            options.transport.set(name, value).unwrap();
        }
    })
    .await;
    let consumer = consume(&redis, &["celery"]).await;
    let mut later = to("celery", 9);
    later.not_before = Some(rwork_protocol::Timestamp::from_millis(4_000_000_000_000));
    redis
        .publish(vec![
            with_priority("celery", 1, 3),
            with_priority("celery", 2, 4),
            with_priority("celery", 3, 9),
            later,
        ])
        .await
        .unwrap();
    assert_eq!(admin.llen::<_, u64>("pfx:celery").await.unwrap(), 1);
    assert_eq!(admin.llen::<_, u64>("pfx:celery:4").await.unwrap(), 2);
    let mut came = receive(&*consumer, 3).await;
    assert_eq!(numbers(&came), [1, 2, 3]);
    assert_eq!(admin.hlen::<_, u64>("pfx:u").await.unwrap(), 3);
    assert_eq!(admin.zcard::<_, u64>("pfx:ui").await.unwrap(), 3);
    settle(&*consumer, vec![came.remove(0)], Disposition::DeadLetter(reason("x"))).await;
    settle(&*consumer, vec![came.remove(0)], Disposition::Requeue).await;
    consumer.renew().await.unwrap();
    let infos = redis.queues().await.unwrap();
    assert_eq!(infos.len(), 1, "{infos:?}");
    let info = &infos[0];
    assert_eq!((info.ready, info.unsettled, info.delayed, info.dead), (1, 1, 1, 1));
    let all = keys(&mut admin).await;
    assert!(all.len() >= 10 && all.iter().all(|key| key.starts_with("pfx:")), "{all:?}");
}

/// Python workers' messages are counted with ours; their queues for talking among themselves are none of ours.
#[tokio::test]
async fn queues_are_listed_by_what_is_known_of_them() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    for (exchange, binding) in [
        ("celery.pidbox", "\x06\x16\x06\x16celery@host.celery.pidbox"),
        ("reply.celery.pidbox", "id\x06\x16\x06\x16id.reply.celery.pidbox"),
        ("named", "key\x06\x16\x06\x16bound"),
        ("named", "nonsense"),
    ] {
        let _: () = admin.sadd(format!("_kombu.binding.{exchange}"), binding).await.unwrap();
    }
    let element = envelope(1, "held", "tag");
    hold_as_kombu(&mut admin, "tag", &format!(r#"[{element}, "", "held"]"#), 1.0).await;
    hold_as_kombu(&mut admin, "other", &format!(r#"[{element}, "named", "h\u0065ld"]"#), 1.0).await;
    hold_as_kombu(&mut admin, "broken", "nonsense", 1.0).await;
    redis.publish_all(vec![with_priority("sent", 1, 9), to("sent", 2)]).await.unwrap();
    let mut later = to("later", 3);
    later.not_before = Some(rwork_protocol::Timestamp::from_millis(4_000_000_000_000));
    redis.publish_all(vec![later]).await.unwrap();
    let infos = redis.queues().await.unwrap();
    let found: Vec<_> = infos
        .iter()
        .map(|info| (info.name.as_str(), info.ready, info.unsettled, info.delayed, info.dead))
        .collect();
    assert_eq!(
        found,
        [("bound", 0, 0, 0, 0), ("held", 0, 2, 0, 0), ("later", 0, 0, 1, 0), ("sent", 2, 0, 0, 0)]
    );
    // Nobody's messages are deleted while somebody holds them.
    assert_eq!(redis.purge(&queue("sent")).await.unwrap(), 2);
    assert_eq!(redis.purge(&queue("held")).await.unwrap(), 0);
    assert_eq!(unacked(&mut admin).await.len(), 3);
}

#[tokio::test]
async fn one_take_does_not_fill_the_memory() {
    let server = Server::start();
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    for number in 0..4 {
        let mut publish = to("celery", number);
        publish.message.body = vec![b'x'; 7 << 20].into();
        redis.publish_all(vec![publish]).await.unwrap();
    }
    let first = within("receive", consumer.receive(room(10))).await.unwrap();
    assert_eq!(numbers(&first), [0, 1], "9 MiB each, as base64");
    let second = within("receive", consumer.receive(room(10))).await.unwrap();
    assert_eq!(numbers(&second), [2, 3]);
}

/// What is in a key's place that belongs to somebody else: nothing is lost by it, and nobody else waits for it.
#[tokio::test]
async fn a_key_of_a_wrong_type_loses_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    redis.publish_all(vec![to("good", 1)]).await.unwrap();
    let _: () = admin.set("bad", "a string").await.unwrap();
    let consumer = consume(&redis, &["good", "bad"]).await;
    assert_eq!(numbers(&receive(&*consumer, 1).await), [1]);
    // Each message has an outcome of its own.
    let outcomes = redis.publish(vec![to("good", 2), to("bad", 3), to("good", 4)]).await.unwrap();
    assert!(
        matches!(outcomes[..], [Ok(()), Err(Error::Act { retryable: false, .. }), Ok(())]),
        "{outcomes:?}"
    );
    let outcomes = redis.publish(vec![to("bad", 3)]).await.unwrap();
    assert!(matches!(outcomes[..], [Err(Error::Act { retryable: false, .. })]), "{outcomes:?}");
    assert_eq!(numbers(&receive(&*consumer, 2).await), [2, 4]);
    // `unacked` itself: what was not popped is still there.
    let _: () = admin.del("bad").await.unwrap();
    consumer.close(&[]).await.unwrap();
    redis.publish_all(vec![to("other", 4)]).await.unwrap();
    let consumer = consume(&redis, &["other"]).await;
    let _: () = admin.set("unacked", "a string").await.unwrap();
    within("receive", consumer.receive(room(1))).await.unwrap_err();
    assert_eq!(admin.llen::<_, u64>("other").await.unwrap(), 1);
}

/// Full memory: producers are refused, and everything that drains goes on.
#[tokio::test]
async fn full_memory_can_be_drained() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    redis.publish_all((0..50).map(|number| to("celery", number)).collect()).await.unwrap();
    let mut later = to("celery", 99);
    later.not_before = Some(
        rwork_protocol::Timestamp::from_system(std::time::SystemTime::now()).plus(Duration::from_millis(50)),
    );
    redis.publish_all(vec![later]).await.unwrap();
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).query_async(&mut admin).await.unwrap();
    let refusal = redis.publish(vec![to("celery", 50)]).await;
    assert!(matches!(refusal, Err(Error::Full { .. })), "{refusal:?}");
    let consumer = consume(&redis, &["celery"]).await;
    let mut came = receive(&*consumer, 51).await;
    assert_eq!(numbers(&came), (0..50).chain([99]).collect::<Vec<_>>());
    consumer.renew().await.unwrap();
    for how in [
        Disposition::Ack,
        Disposition::Requeue,
        Disposition::Release,
        Disposition::DeadLetter(reason("x")),
        Disposition::Delay(rwork_protocol::Timestamp::from_millis(4_000_000_000_000)),
    ] {
        assert_eq!(settle(&*consumer, vec![came.remove(0)], how.clone()).await, [Committed::Done], "{how:?}");
    }
    consumer.close(&[]).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 48).await;
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, vec![Committed::Done; 48]);
    assert_eq!(redis.retry_dead_letters(DeadLetterQuery::default()).await.unwrap(), 1);
    assert_eq!(receive(&*consumer, 1).await.len(), 1);
}

/// Where the server may not tell of messages it is asked.
#[tokio::test]
async fn without_tracking_it_polls() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let _: () = redis::cmd("ACL")
        .arg(&["SETUSER", "mute", "on", ">pw", "~*", "&*", "+@all", "-client|tracking"])
        .query_async(&mut admin)
        .await
        .unwrap();
    let url = server.url().replace("redis://", "redis://mute:pw@");
    let redis = connect(&url, |options| options.transport.set("polling_interval", "0.005").unwrap()).await;
    let consumer = consume(&redis, &["celery"]).await;
    let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        redis.publish_all(vec![to("celery", 1)]).await.unwrap();
    });
    assert_eq!(numbers(&came), [1]);
}

/// A waiting consumer asks once a second, and once for each word of the server's.
#[tokio::test]
async fn waiting_costs_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery", "other"]).await;
    for number in 0..20 {
        let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
            redis.publish_all(vec![to("celery", number)]).await.unwrap();
        });
        assert_eq!(numbers(&came), [number]);
        settle(&*consumer, came, Disposition::Ack).await;
    }
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
    let calls: u32 = line.split("calls=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    // A take and a commit for each; some for the start and for ticks of the clock.
    assert!(calls < 20 * 2 + 30, "{line}");
}

/// 2,000 queues: all are served, and a take asks only those that have something.
#[tokio::test]
async fn many_queues_are_served() {
    const COUNT: usize = 2000;
    let server = Server::start();
    let redis = connect(&server.url(), |_| {}).await;
    let names: Vec<String> = (0..COUNT).map(|number| format!("queue-{number}")).collect();
    let batch = names.iter().enumerate().step_by(7).map(|(number, name)| to(name, number)).collect();
    redis.publish_all(batch).await.unwrap();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let consumer = consume_many(&redis, &all, 10_000).await;
    let came = receive(&*consumer, COUNT.div_ceil(7)).await;
    let mut found = numbers(&came);
    found.sort_unstable();
    assert_eq!(found, (0..COUNT).step_by(7).collect::<Vec<_>>());
    settle(&*consumer, came, Disposition::Ack).await;
    for number in [0, 999, COUNT - 1] {
        let (came, ()) = tokio::join!(receive(&*consumer, 1), async {
            redis.publish_all(vec![to(&names[number], number)]).await.unwrap();
        });
        assert_eq!(numbers(&came), [number]);
    }
    assert!(consumer.renew().await.unwrap());
    consumer.close(&[]).await.unwrap();
}

#[tokio::test]
async fn too_many_queues_are_refused_with_their_number() {
    let server = Server::start();
    let redis = connect(&server.url(), |_| {}).await;
    let queues = (0..10_001).map(|number| queue(&format!("q{number}"))).collect();
    let options = Consume { queues, name: "test@host".to_owned(), unsettled_max: 20_000 };
    let error = redis.consume(options).await.unwrap_err();
    assert!(error.to_string().contains("1 to 10000 queues for one consumer, got 10001"), "{error}");
}

/// Letters that come back while all are retried are not retried again: there would be no end.
#[tokio::test]
async fn a_retry_of_all_ends_with_those_that_were_there() {
    const COUNT: usize = 1_000;
    let server = Server::start();
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume_many(&redis, &["celery"], COUNT).await;
    redis.publish_all((0..COUNT).map(|number| to("celery", number)).collect()).await.unwrap();
    let die = || Disposition::DeadLetter(reason("unknown-task"));
    settle(&*consumer, receive(&*consumer, COUNT).await, die()).await;
    let again = async {
        loop {
            let came = consumer.receive(room(COUNT)).await.unwrap();
            settle(&*consumer, came, die()).await;
        }
    };
    let retried = redis.retry_dead_letters(DeadLetterQuery::default());
    let retried = within("retrying", async {
        tokio::select! { retried = retried => retried.unwrap(), () = again => 0 }
    });
    assert_eq!(retried.await, COUNT as u64);
}
