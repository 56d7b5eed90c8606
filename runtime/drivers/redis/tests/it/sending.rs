//! Sending: named exchanges, and messages that are held back.

use std::time::{Duration, SystemTime};

use redis::AsyncCommands;
use rwork_broker::{Broker, Committed, Disposition, Error, Publish, Route};
use rwork_protocol::Timestamp;

use crate::common::{Server, within};
use crate::peers::*;

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn at(mut publish: Publish, time: Timestamp) -> Publish {
    publish.not_before = Some(time);
    publish
}

fn by(exchange: &str, routing_key: &str, number: usize) -> Publish {
    let route = Route { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() };
    Publish { route, ..to("unused", number) }
}

/// `celery-wire.md` §2.3, and checklist 29 from the other side.
#[tokio::test]
async fn named_exchanges_lead_to_their_queues() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let bind = |key: &str, pattern: &str, queue: &str| format!("{key}\x06\x16{pattern}\x06\x16{queue}");
    let direct = [bind("a", "", "q1"), bind("a", "", "q2"), bind("b", "", "q3")];
    let _: () = admin.sadd("_kombu.binding.direct", &direct).await.unwrap();
    let topic = [
        bind("stock.*", r"^stock\.[^\.]+$", "q1"),
        bind("stock.#", r"^stock\..*?$", "q2"),
        bind("broken", r"^(", "q3"),
        "not a binding".to_owned(),
    ];
    let _: () = admin.sadd("_kombu.binding.topic", &topic).await.unwrap();
    redis
        .publish_all(vec![by("direct", "a", 1), by("topic", "stock.us", 2), by("topic", "stock.us.nyse", 3)])
        .await
        .unwrap();
    let mut ends = Vec::new();
    for queue in ["q1", "q2", "q3"] {
        let found: Vec<String> = list(&mut admin, queue).await.into_iter().rev().collect();
        ends.push(
            found
                .iter()
                .map(|text| text.split("\"id\": \"").nth(1).unwrap()[..1].to_owned())
                .collect::<String>(),
        );
        // One message, one tag, wherever it goes.
        assert!(
            found.iter().all(|text| text.contains("\"routing_key\": \"a\"") || text.contains("stock.us"))
        );
    }
    assert_eq!(ends, ["12", "123", ""]);
    let tag = |text: &String| text.rsplit("\"delivery_tag\": ").next().unwrap().to_owned();
    let (one, two) = (list(&mut admin, "q1").await, list(&mut admin, "q2").await);
    assert_eq!(tag(one.last().unwrap()), tag(two.last().unwrap()));

    // kombu drops these; each is refused by itself.
    for (exchange, key) in [("direct", "c"), ("topic", "bonds"), ("topic", "broken"), ("nowhere", "a")] {
        let outcomes = redis.publish(vec![by(exchange, key, 1), to("q3", 9)]).await.unwrap();
        assert!(
            matches!(outcomes[..], [Err(Error::Act { retryable: false, .. }), Ok(())]),
            "{exchange} {key}: {outcomes:?}"
        );
    }
    assert_eq!(list(&mut admin, "q3").await.len(), 4);
    let redis =
        connect(&server.url(), |options| options.transport.set("deadletter_queue", "last").unwrap()).await;
    redis.publish_all(vec![by("direct", "c", 4)]).await.unwrap();
    assert_eq!(list(&mut admin, "last").await.len(), 1);
    // The default binding of a consumed queue, which a kombu producer uses.
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all(vec![by("celery", "celery", 5)]).await.unwrap();
    assert_eq!(numbers(&receive(&*consumer, 1).await), [5]);
}

#[tokio::test]
async fn delayed_messages_come_by_time_and_keep_their_priority() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let start = now();
    let due = |ms: u64| start.plus(Duration::from_millis(ms));
    let batch = vec![
        at(to("celery", 3), due(180)),
        at(to("celery", 0), due(60)),
        at(with_priority("celery", 4, 9), due(180)),
        // Due together: in the order of sending.
        at(to("celery", 1), due(120)),
        at(to("celery", 2), due(120)),
        at(to("celery", 5), due(3_600_000)),
    ];
    redis.publish_all(batch).await.unwrap();
    assert_eq!(list(&mut admin, "celery").await, [""; 0]);
    let parked: Vec<String> = admin.hvals("rwork.parked.celery").await.unwrap();
    assert_eq!(parked.iter().filter(|parked| parked.starts_with("9:{")).count(), 1);
    assert_eq!(parked.iter().filter(|parked| parked.starts_with("0:{")).count(), 5);
    let consumer = consume(&redis, &["celery"]).await;
    let mut came = Vec::new();
    while came.len() < 5 {
        for delivery in within("receive", consumer.receive(room(1))).await.unwrap() {
            let number = numbers(std::slice::from_ref(&delivery))[0];
            let expect = [60, 120, 120, 180, 180][number];
            assert!(now() >= due(expect), "{number} came early");
            assert!(!delivery.redelivered && delivery.delivery_count == 1);
            came.push(number);
        }
    }
    assert_eq!(came, [0, 1, 2, 3, 4]);
    assert_eq!(admin.hlen::<_, u64>("rwork.parked.celery").await.unwrap(), 1);
    assert_eq!(admin.zcard::<_, u64>("rwork.delayed.celery").await.unwrap(), 1);
    assert_eq!(redis.purge(&queue("celery")).await.unwrap(), 1);
}

/// Not due yet: parked in the step that ends the delivery, untouched, whatever became of the steps meanwhile.
#[tokio::test]
async fn a_delivery_can_be_held_back() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let consumer = consume(&redis, &["celery"]).await;
    let sent = envelope(1, "celery", "tag").replace("\"priority\": 0", "\"priority\": 6");
    // The same one twice: both must come back.
    let _: () = admin.lpush("celery\x06\x166", &[&sent, &sent]).await.unwrap();
    let came = receive(&*consumer, 2).await;
    let until = now().plus(Duration::from_millis(80));
    assert_eq!(settle(&*consumer, came, Disposition::Delay(until)).await, vec![Committed::Done; 2]);
    assert_eq!(unacked(&mut admin).await, []);
    assert_eq!(
        admin.hvals::<_, Vec<String>>("rwork.parked.celery").await.unwrap(),
        [format!("6:{sent}"), format!("6:{sent}")]
    );
    consumer.close(&[]).await.unwrap();
    let redis =
        connect(&server.url(), |options| options.transport.set("priority_steps", "0,5").unwrap()).await;
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 2).await;
    assert!(now() >= until);
    assert!(came.iter().all(|delivery| !delivery.redelivered && delivery.delivery_count == 1));
    // A time that has passed: at once.
    assert_eq!(
        settle(&*consumer, came, Disposition::Delay(Timestamp::from_millis(1))).await,
        vec![Committed::Done; 2]
    );
    assert_eq!(admin.exists::<_, u64>("rwork.parked.celery").await.unwrap(), 0);
    assert_eq!(receive(&*consumer, 2).await.len(), 2);
}

/// A worker with its hands full still makes ready what is due, for others on the queue.
#[tokio::test]
async fn what_is_due_becomes_ready_without_anybody_taking() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let busy = consume(&redis, &["celery"]).await;
    redis
        .publish_all(
            (0..1200).map(|number| at(to("celery", number), now().plus(Duration::from_millis(20)))).collect(),
        )
        .await
        .unwrap();
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    let waiting = async {
        while admin.llen::<_, usize>("celery").await.unwrap() < 1200 {
            beat.tick().await;
            busy.renew().await.unwrap();
        }
    };
    within("waiting", waiting).await;
    assert_eq!(numbers(&receive(&*busy, 1000).await), (0..1000).collect::<Vec<_>>());
}
