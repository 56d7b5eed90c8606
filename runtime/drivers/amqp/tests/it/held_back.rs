//! Delayed delivery and dead letters.

use std::time::Duration;

use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use rwork_amqp::QueueType;
use rwork_broker::{Broker as _, DeadLetterQuery, Disposition, Publish, Reason};
use rwork_protocol::QueueName;
use serde_json::json;

use crate::place::{Place, at, celery, connect, consume, message, now, numbers, receive, send, settle, to};

fn reason() -> Reason {
    Reason {
        kind: "rejected".to_owned(),
        detail: "no".to_owned(),
        worker: "driver@host".to_owned(),
        at: now(),
    }
}

/// Through the levels and over the last part of a second, on both kinds of queue and by both ways in.
#[tokio::test]
async fn delayed_messages_are_never_early() {
    let place = Place::new().await;
    for broker in [place.classic().await, place.quorum().await] {
        // A name with a dot, whose last word is another queue's name: what waits for one must not reach the other.
        let name = format!("q{:p}", &raw const *broker);
        let (queue, other) = (QueueName::new(format!("shop.{name}")).unwrap(), QueueName::new(name).unwrap());
        let consumer = consume(&broker, &[&queue], 4).await;
        send(&broker, &queue, 1..2).await;
        let handed = receive(&*consumer, 1).await;
        let due = now().plus(Duration::from_millis(2300));
        let for_others = at(&other, 9, now().plus(Duration::from_secs(1)));
        broker.publish_all(vec![at(&queue, 0, due), for_others]).await.unwrap();
        let later = now().plus(Duration::from_millis(1600));
        settle(&*consumer, handed, &Disposition::Delay(later)).await;
        let came = receive(&*consumer, 2).await;
        assert!(now() >= due.max(later));
        let mut found = numbers(&came);
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
        for delivery in &came {
            assert_eq!(delivery.delivery_count, 1);
            let headers: serde_json::Value = serde_json::from_slice(&delivery.message.headers).unwrap();
            assert!(headers.get("x-rwork-not-before").is_none(), "{headers}");
        }
        settle(&*consumer, came, &Disposition::Ack).await;
        let others = consume(&broker, &[&other], 4).await;
        assert_eq!(numbers(&receive(&*others, 1).await), [9]);
        place.until(queue.as_str(), 0, 0).await;
    }
}

/// What waits longer than it may live is not lost: its life begins when the wait is over.
#[tokio::test]
async fn a_time_to_live_does_not_end_the_waiting() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let mut short = message(0);
    short.properties.expiration = Some("5000".to_owned());
    let due = now().plus(Duration::from_millis(1200));
    broker.publish_all(vec![Publish { not_before: Some(due), ..to(&celery(), short) }]).await.unwrap();
    let consumer = consume(&broker, &[&celery()], 4).await;
    let came = receive(&*consumer, 1).await;
    assert!(now() >= due);
    assert_eq!(came[0].message.properties.expiration.as_deref(), Some("5000"));
}

/// A Celery worker's own delayed messages arrive with their long routing key and the server's history.
#[tokio::test]
async fn celerys_delayed_messages_are_handed_over() {
    let place = Place::new().await;
    let broker = place.quorum().await;
    let consumer = consume(&broker, &[&celery()], 4).await;
    let key = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.celery";
    let route = rwork_broker::Route { exchange: "celery_delayed_27".to_owned(), routing_key: key.to_owned() };
    let before = now();
    broker.publish_all(vec![Publish { route, message: message(0), not_before: None }]).await.unwrap();
    let came = receive(&*consumer, 1).await;
    assert!(now().since(before) >= Duration::from_secs(1));
    assert_eq!(came[0].queue, celery());
    let headers: serde_json::Value = serde_json::from_slice(&came[0].message.headers).unwrap();
    assert_eq!(headers["x-death"][0]["queue"], json!("celery_delayed_0"));
    // Once more, as a retry: the server drops what comes to a queue a second time by itself.
    settle(&*consumer, came, &Disposition::Delay(now().plus(Duration::from_millis(1100)))).await;
    assert_eq!(numbers(&receive(&*consumer, 1).await), [0]);
}

/// The queue's own dead-letter exchange gets the original, rwork's queue a copy with the reason.
#[tokio::test]
async fn dead_letters_go_both_ways() {
    let place = Place::new().await;
    for (name, broker) in [("one", place.classic().await), ("two", place.quorum().await)] {
        let queue = QueueName::new(name).unwrap();
        let stranger = place.stranger().await;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        stranger.queue_declare("graveyard".into(), durable, FieldTable::default()).await.unwrap();
        stranger
            .queue_bind(
                "graveyard".into(),
                "amq.fanout".into(),
                "".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let policy = json!({"dead-letter-exchange": "amq.fanout"});
        place.server.set_policy(&place.vhost, "^(one|two)$", &policy).await.unwrap();
        let mut transient = message(0);
        transient.properties.delivery_mode = Some(1);
        transient.properties.expiration = Some("600000".to_owned());
        broker.publish_all(vec![to(&queue, transient.clone())]).await.unwrap();
        let consumer = consume(&broker, &[&queue], 4).await;
        settle(&*consumer, receive(&*consumer, 1).await, &Disposition::DeadLetter(reason())).await;

        let original = loop {
            let got = stranger.basic_get("graveyard".into(), BasicGetOptions { no_ack: true }).await.unwrap();
            if let Some(got) = got {
                break got;
            }
        };
        assert_eq!(original.delivery.data, transient.body);
        let letters = broker.dead_letters(DeadLetterQuery::default()).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].message.properties, transient.properties, "as it came");
        assert_eq!(letters[0].queue, queue);
        let kept = stranger
            .basic_get("rwork.dead".into(), BasicGetOptions { no_ack: false })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*kept.delivery.properties.delivery_mode(), Some(2), "a letter outlives a restart");
        assert_eq!(*kept.delivery.properties.expiration(), None, "and does not run out");
        drop((kept, stranger));
        place.until("rwork.dead", 1, 0).await;
        assert_eq!(broker.retry_dead_letters(DeadLetterQuery::default()).await.unwrap(), 1);
        let came = receive(&*consumer, 1).await;
        assert_eq!((came[0].message.properties.clone(), came[0].delivery_count), (transient.properties, 1));
        settle(&*consumer, came, &Disposition::Ack).await;
    }
}

/// What is given up out of a shelter, too, goes where its queue sends what is rejected.
#[tokio::test]
async fn dead_letters_out_of_a_shelter_go_both_ways() {
    let place = Place::new().await;
    let stranger = place.stranger().await;
    let durable = || QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    stranger.queue_declare("graveyard".into(), durable(), FieldTable::default()).await.unwrap();
    for (name, exchange, expected) in [("one", "", 1), ("two", "nowhere", 0)] {
        let queue = QueueName::new(name).unwrap();
        let mut arguments = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(text.into());
        arguments.insert("x-dead-letter-exchange".into(), text(exchange));
        arguments.insert("x-dead-letter-routing-key".into(), text("graveyard"));
        stranger.queue_declare(name.into(), durable(), arguments).await.unwrap();
        let mut options = place.options(QueueType::Classic);
        options.consumer_timeout = Duration::from_secs(1);
        let broker = connect(options).await;
        broker.publish_all(vec![to(&queue, message(7))]).await.unwrap();
        let consumer = consume(&broker, &[&queue], 4).await;
        let held = receive(&*consumer, 1).await;
        let is_moved = |queues: &[crate::rabbitmq::Queue]| {
            let of = |start: &str| queues.iter().find(|queue| queue.name.starts_with(start));
            of("rwork.held.").is_some_and(|shelter| shelter.unsettled == 1)
                && of(name).is_some_and(|queue| queue.unsettled == 0)
        };
        place.server.until(&place.vhost, is_moved).await.unwrap();
        settle(&*consumer, held, &Disposition::DeadLetter(reason())).await;
        // Confirmed before it is acked: it is there.
        let no_ack = BasicGetOptions { no_ack: true };
        let sent_on = stranger.basic_get("graveyard".into(), no_ack).await.unwrap();
        assert_eq!(sent_on.iter().len(), expected, "{name}");
        if let Some(sent_on) = sent_on {
            assert_eq!(sent_on.delivery.data, message(7).body);
            let headers = sent_on.delivery.properties.headers().clone().unwrap();
            let word = |name: &str| headers.inner().get(name).cloned();
            assert_eq!(word("x-first-death-queue"), Some(text(name)));
            assert_eq!(word("x-first-death-reason"), Some(text("rejected")));
            assert!(word("x-death").is_some() && word("x-rwork-held").is_none(), "{headers:?}");
        }
        let letters = broker.dead_letters(DeadLetterQuery::default()).await.unwrap();
        assert_eq!(letters.iter().filter(|letter| letter.queue == queue).count(), 1, "{name}");
        consumer.close(&[]).await.unwrap();
        place.until(name, 0, 0).await;
    }
}

/// Purging takes what waits in the levels, here and at the server, and nothing of other queues.
#[tokio::test]
async fn purging_leaves_others_alone() {
    let place = Place::new().await;
    let broker = connect(place.options(QueueType::Classic)).await;
    let other = QueueName::new("other").unwrap();
    let later = now().plus(Duration::from_secs(600));
    let batch =
        [at(&celery(), 0, later), at(&other, 1, later), at(&celery(), 2, later), to(&celery(), message(3))];
    broker.publish_all(batch.to_vec()).await.unwrap();
    let count = |infos: &[rwork_broker::QueueInfo], queue: &QueueName| {
        infos.iter().find(|info| info.name == *queue).map(|info| (info.ready, info.delayed))
    };
    let infos = broker.queues().await.unwrap();
    assert_eq!((count(&infos, &celery()), count(&infos, &other)), (Some((1, 2)), Some((0, 1))));
    assert_eq!(broker.purge(&celery()).await.unwrap(), 3);
    // Another process knows the queue by what waits for it.
    let infos = place.classic().await.queues().await.unwrap();
    assert_eq!((count(&infos, &celery()), count(&infos, &other)), (None, Some((0, 1))));
}
