//! What is declared, and peace with what is there already.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use rwork_amqp::QueueType;
use rwork_broker::{Broker as _, Consume, Disposition, Error};
use serde_json::{Value, json};

use crate::place::{Place, at, celery, connect, consume, message, now, numbers, receive, send, settle, to};

/// Arguments as `rabbitmqctl list_queues arguments` tells them: name, type, value.
fn argument(queue: &crate::rabbitmq::Queue, name: &str) -> Option<Value> {
    match &queue.arguments {
        Value::Object(arguments) => arguments.get(name).cloned(),
        Value::Array(arguments) => {
            let found = arguments.iter().find(|argument| argument[0] == name)?;
            Some(found[2].clone())
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_virgin_virtual_host_gets_what_celery_makes() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let consumer = consume(&broker, &[&celery()], 8).await;
    let queues = place.server.queues(&place.vhost).await.unwrap();
    let [queue] = queues.as_slice() else { panic!("{queues:?}") };
    assert_eq!((queue.name.as_str(), queue.kind.as_str()), ("celery", "classic"));
    assert!(queue.durable && !queue.auto_delete);
    assert_eq!(queue.arguments, json!([]), "Celery sets none, and would be refused otherwise");
    let exchanges = place.server.exchanges(&place.vhost).await.unwrap();
    let [exchange] = exchanges.as_slice() else { panic!("{exchanges:?}") };
    assert_eq!(
        (exchange.name.as_str(), exchange.kind.as_str(), exchange.durable),
        ("celery", "direct", true)
    );
    let bindings = place.server.bindings(&place.vhost).await.unwrap();
    let [binding] = bindings.as_slice() else { panic!("{bindings:?}") };
    assert_eq!(
        (&*binding.source_name, &*binding.routing_key, &*binding.destination_name),
        ("celery", "celery", "celery")
    );
    consumer.close(&[]).await.unwrap();
}

#[tokio::test]
async fn delayed_delivery_is_celerys() {
    let place = Place::new().await;
    let mut options = place.options(QueueType::Classic);
    options.delayed_queue_type = QueueType::Quorum;
    let broker = connect(options).await;
    broker.publish_all(vec![at(&celery(), 0, now().plus(Duration::from_secs(3600)))]).await.unwrap();
    let queues = place.server.queues(&place.vhost).await.unwrap();
    for level in 0..28_u32 {
        let name = format!("celery_delayed_{level}");
        let queue = queues.iter().find(|queue| queue.name == name).unwrap();
        assert_eq!(queue.kind, "quorum");
        let next = if level == 0 {
            "celery_delayed_delivery".to_owned()
        } else {
            format!("celery_delayed_{}", level - 1)
        };
        for (name, expected) in [
            ("x-queue-type", json!("quorum")),
            ("x-overflow", json!("reject-publish")),
            ("x-message-ttl", json!(1000_i64 << level)),
            ("x-dead-letter-exchange", json!(next)),
            ("x-dead-letter-strategy", json!("at-least-once")),
        ] {
            assert_eq!(
                argument(queue, name),
                Some(expected),
                "{name} of level {level}: {:?}",
                queue.arguments
            );
        }
    }
    let bindings: BTreeSet<_> = place
        .server
        .bindings(&place.vhost)
        .await
        .unwrap()
        .into_iter()
        .map(|binding| (binding.source_name, binding.routing_key, binding.destination_name))
        .collect();
    let has = |source: &str, key: &str, destination: &str| {
        assert!(
            bindings.contains(&(source.into(), key.into(), destination.into())),
            "{source} {key} {destination}"
        );
    };
    has("celery_delayed_27", "1.#", "celery_delayed_27");
    has("celery_delayed_27", "0.#", "celery_delayed_26");
    has("celery_delayed_25", "*.*.1.#", "celery_delayed_25");
    has("celery_delayed_0", &format!("{}0.#", "*.".repeat(27)), "celery_delayed_delivery");
    let waiting: u64 = place.server.queues(&place.vhost).await.unwrap().iter().map(|queue| queue.ready).sum();
    assert_eq!(waiting, 1);
}

/// Queues that others made otherwise: used as they are, and their counting is known.
#[tokio::test]
async fn queues_of_others_are_used_as_they_are() {
    let place = Place::new().await;
    let stranger = place.stranger().await;
    let text = |text: &str| AMQPValue::LongString(text.into());
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let made = [
        ("quorum", durable, vec![("x-queue-type", text("quorum"))]),
        ("prioritized", durable, vec![("x-max-priority", AMQPValue::LongInt(5))]),
        ("transient", QueueDeclareOptions::default(), Vec::new()),
        (
            "odd",
            durable,
            vec![
                ("x-expires", AMQPValue::LongInt(3_600_000)),
                ("x-max-length", AMQPValue::LongLongInt(1000)),
                ("x-dead-letter-exchange", text("elsewhere")),
                ("x-queue-type", text("quorum")),
            ],
        ),
    ];
    for (name, options, arguments) in made {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert(name.into(), value);
        }
        stranger.queue_declare(name.into(), options, table).await.unwrap();
    }
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let topic = ExchangeKind::Topic;
    stranger.exchange_declare("odd".into(), topic, durable, FieldTable::default()).await.unwrap();
    let before = place.server.queues(&place.vhost).await.unwrap();

    for kind in [QueueType::Classic, QueueType::Quorum] {
        let mut options = place.options(kind);
        options.max_priority = Some(9);
        let broker = connect(options).await;
        for name in ["quorum", "prioritized", "transient", "odd"] {
            let queue = rwork_protocol::QueueName::new(name).unwrap();
            broker.publish_all(vec![to(&queue, message(0))]).await.unwrap();
            let consumer = consume(&broker, &[&queue], 4).await;
            settle(&*consumer, receive(&*consumer, 1).await, &Disposition::Requeue).await;
            let again = receive(&*consumer, 1).await;
            assert_eq!(again[0].delivery_count, 2, "{name}");
            settle(&*consumer, again, &Disposition::Ack).await;
            consumer.close(&[]).await.unwrap();
            place.until(name, 0, 0).await;
        }
    }
    let after = place.server.queues(&place.vhost).await.unwrap();
    let kinds = |queues: &[crate::rabbitmq::Queue]| -> BTreeSet<_> {
        queues
            .iter()
            .filter(|queue| !queue.name.starts_with("celery_delayed") && !queue.name.starts_with("rwork."))
            .map(|queue| (queue.name.clone(), queue.kind.clone(), queue.arguments.to_string()))
            .collect()
    };
    assert_eq!(kinds(&after), kinds(&before));
}

#[tokio::test]
async fn a_stream_is_refused_with_a_hint() {
    let place = Place::new().await;
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    place.stranger().await.queue_declare("celery".into(), durable, table).await.unwrap();
    let broker = place.classic().await;
    let options = Consume { queues: vec![celery()], name: "driver@host".to_owned(), unsettled_max: 1 };
    let refusal = broker.consume(options).await.unwrap_err();
    assert!(matches!(&refusal, Error::Refused { why, .. } if why.contains("stream")), "{refusal:?}");
}

#[tokio::test]
async fn a_deleted_queue_is_made_again_by_whoever_publishes() {
    let place = Place::new().await;
    let broker = place.classic().await;
    send(&broker, &celery(), 0..1).await;
    let stranger = place.stranger().await;
    stranger.queue_delete("celery".into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    send(&broker, &celery(), 1..4).await;
    let consumer = consume(&broker, &[&celery()], 4).await;
    assert_eq!(numbers(&receive(&*consumer, 3).await), [1, 2, 3]);
}

/// A worker's user may be forbidden to make anything.
#[tokio::test]
async fn whoever_may_not_configure_uses_what_is_there() {
    let place = Place::new().await;
    send(&*place.classic().await, &celery(), 0..1).await;
    let who = format!("reader-{}", place.vhost);
    place.server.add_user(&who, "pw").await.unwrap();
    let limited = format!(
        "rabbit_auth_backend_internal:set_permissions(<<\"{who}\">>, <<\"{}\">>, <<\"^$\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>)",
        place.vhost
    );
    place.server.eval(&limited).await.unwrap();
    let mut options = place.options(QueueType::Classic);
    options.url = place.server.url_of(&who, "pw", &place.vhost);
    let broker = connect(options).await;
    let consumer = consume(&broker, &[&celery()], 4).await;
    settle(&*consumer, receive(&*consumer, 1).await, &Disposition::Ack).await;
    send(&broker, &celery(), 1..2).await;
    assert_eq!(numbers(&receive(&*consumer, 1).await), [1]);
    let missing = rwork_protocol::QueueName::new("missing").unwrap();
    let refusal = broker.publish_all(vec![to(&missing, message(0))]).await.unwrap_err();
    assert!(matches!(refusal, Error::Refused { .. }), "{refusal:?}");
}
