//! What the server takes away, and how it goes on.

use std::time::Duration;

use lapin::options::{QueueDeleteOptions, QueuePurgeOptions};
use rwork_broker::{Broker as _, Committed, Disposition, Error, Publish, Resumed, Route};
use rwork_protocol::QueueName;

use crate::place::{
    Place, at, batch, celery, connect, consume, message, now, numbers, receive, room, send, settle, settled,
    to,
};
use crate::rabbitmq::{RabbitServer, Room};

#[tokio::test]
async fn a_deleted_queue_is_consumed_again() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let other = QueueName::new("other").unwrap();
    let consumer = consume(&broker, &[&celery(), &other], 8).await;
    send(&broker, &celery(), 0..1).await;
    send(&broker, &other, 1..2).await;
    let mut held = receive(&*consumer, 2).await;
    held.sort_by_key(|delivery| delivery.queue.clone());
    let kept = held.split_off(1);
    let waiting = receive(&*consumer, 1);
    tokio::pin!(waiting);
    let deleted = async {
        place.stranger().await.queue_delete("celery".into(), QueueDeleteOptions::default()).await.unwrap();
        // The consumer makes it again and consumes it.
        let is_back = |queues: &[crate::rabbitmq::Queue]| {
            queues.iter().any(|queue| queue.name == "celery" && queue.consumers > 0)
        };
        place.server.until(&place.vhost, is_back).await.unwrap();
        send(&broker, &celery(), 2..3).await;
    };
    let (came, ()) = tokio::join!(waiting, deleted);
    assert_eq!(numbers(&came), [2]);
    // The other queue's deliveries were never in danger.
    settle(&*consumer, kept, &Disposition::Ack).await;
    settle(&*consumer, came, &Disposition::Ack).await;
    place.until("other", 0, 0).await;
    place.until("celery", 0, 0).await;
}

#[tokio::test]
async fn a_closed_connection_ends_the_consumer_and_no_more() {
    let place = Place::new().await;
    for (broker, is_classic) in [(place.classic().await, true), (place.quorum().await, false)] {
        let queue = QueueName::new(format!("q{:p}", &raw const *broker)).unwrap();
        let consumer = consume(&broker, &[&queue], 4).await;
        send(&broker, &queue, 0..2).await;
        let held = receive(&*consumer, 1).await;
        assert!(place.server.close_connections(&place.vhost, "a test").await.unwrap() >= 2);
        let ended = loop {
            match consumer.receive(room(1)).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, Error::Unreachable { .. }) && ended.is_retryable(), "{ended:?}");
        assert!(!consumer.renew().await.unwrap());
        assert_eq!(consumer.resume().await.unwrap(), Resumed::Dead);
        let late = held.into_iter().map(|delivery| settled(delivery, &Disposition::Ack)).collect();
        let late = consumer.commit(&batch(late)).await;
        assert_eq!(late.unwrap(), [Committed::Lost]);
        drop(consumer);
        // The same handle goes on by itself.
        let consumer = consume(&broker, &[&queue], 4).await;
        let mut came = receive(&*consumer, 2).await;
        came.sort_by_key(|delivery| delivery.message.properties.correlation_id.clone());
        assert_eq!(numbers(&came), [0, 1]);
        // An outage is nobody's outcome; on a quorum queue the server counts, whatever it was.
        let counts: Vec<u32> = came.iter().map(|delivery| delivery.delivery_count).collect();
        assert!(!is_classic || counts == [1, 1], "{counts:?}");
        send(&broker, &queue, 2..3).await;
        settle(&*consumer, came, &Disposition::Ack).await;
        assert_eq!(numbers(&receive(&*consumer, 1).await), [2]);
    }
}

/// A server without memory, or without disk, takes nothing and gives everything. Alone on its server: an alarm is everybody's.
#[tokio::test]
async fn an_alarm_blocks_publishing_and_nothing_else() {
    let server = RabbitServer::start().unwrap();
    for room in Room::ALL {
        let vhost = server.fresh_vhost().await.unwrap();
        let mut options = rwork_amqp::Options::parse(&server.url(&vhost), rwork_amqp::Role::Broker).unwrap();
        options.consumer_timeout = Duration::ZERO;
        let broker = connect(options).await;
        send(&broker, &celery(), 0..20).await;
        let consumer = consume(&broker, &[&celery()], 20).await;
        let first = receive(&*consumer, 5).await;
        server.starve(room).await.unwrap();
        let queue = celery();
        let publishing = send(&broker, &queue, 100..101);
        tokio::pin!(publishing);
        let meanwhile = async {
            settle(&*consumer, first, &Disposition::Ack).await;
            for _ in 0..3 {
                settle(&*consumer, receive(&*consumer, 5).await, &Disposition::Ack).await;
            }
            server.until(&vhost, |queues| queues.iter().all(|queue| queue.is_empty())).await.unwrap();
        };
        tokio::select! {
            () = &mut publishing => panic!("the server took a message without having room: {room:?}"),
            () = meanwhile => {}
        }
        server.feed(room).await.unwrap();
        publishing.await;
        assert_eq!(numbers(&receive(&*consumer, 1).await), [100], "{room:?}");
    }
}

/// A server that looks ten times a second and closes channels after three seconds.
async fn impatient() -> RabbitServer {
    let server = RabbitServer::start().unwrap();
    server.set_consumer_timeout(Duration::from_secs(3)).await.unwrap();
    server
}

/// The server closes one channel: what was held of that queue is lost and comes again, and nothing else is touched.
#[tokio::test]
async fn a_closed_channel_costs_its_own_queue_alone() {
    let server = impatient().await;
    let vhost = server.fresh_vhost().await.unwrap();
    let mut options = rwork_amqp::Options::parse(&server.url(&vhost), rwork_amqp::Role::Broker).unwrap();
    // As if nobody knew of the limit.
    options.consumer_timeout = Duration::ZERO;
    let broker = connect(options).await;
    let (other, clock) = (QueueName::new("other").unwrap(), QueueName::new("clock").unwrap());
    let consumer = consume(&broker, &[&celery(), &other, &clock], 9).await;
    send(&broker, &celery(), 0..1).await;
    let lost = receive(&*consumer, 1).await;
    broker.publish_all(vec![at(&clock, 9, now().plus(Duration::from_secs(2)))]).await.unwrap();
    settle(&*consumer, receive(&*consumer, 1).await, &Disposition::Ack).await;
    send(&broker, &other, 1..2).await;
    let kept = receive(&*consumer, 1).await;
    let again = receive(&*consumer, 1).await;
    assert_eq!((numbers(&again), again[0].delivery_count), (vec![0], 2));
    let late = lost.into_iter().map(|delivery| settled(delivery, &Disposition::Ack)).collect();
    assert_eq!(consumer.commit(&batch(late)).await.unwrap(), [Committed::Lost]);
    settle(&*consumer, kept, &Disposition::Ack).await;
    settle(&*consumer, again, &Disposition::Ack).await;
    server.until(&vhost, |queues| queues.iter().all(|queue| queue.is_empty())).await.unwrap();
}

/// A task that takes longer than the server allows keeps its delivery, and so do the others of its channel.
#[tokio::test]
async fn a_delivery_outlives_the_servers_limit() {
    let server = impatient().await;
    for kind in [rwork_amqp::QueueType::Classic, rwork_amqp::QueueType::Quorum] {
        let vhost = server.fresh_vhost().await.unwrap();
        let mut options = rwork_amqp::Options::parse(&server.url(&vhost), rwork_amqp::Role::Broker).unwrap();
        (options.default_queue_type, options.missing_queue_type) = (kind, kind);
        options.consumer_timeout = Duration::from_secs(3);
        let broker = connect(options).await;
        send(&broker, &celery(), 0..4).await;
        let consumer = consume(&broker, &[&celery()], 4).await;
        let mut held = receive(&*consumer, 4).await;
        // Messages that wait for their time tell how much has passed: the limit, three times.
        let clock = QueueName::new("clock").unwrap();
        let ticking = consume(&broker, &[&clock], 4).await;
        broker.publish_all(vec![at(&clock, 0, now().plus(Duration::from_secs(9)))]).await.unwrap();
        assert_eq!(numbers(&receive(&*ticking, 1).await), [0]);

        assert!(consumer.renew().await.unwrap());
        let requeued = held.split_off(3);
        settle(&*consumer, held.split_off(2), &Disposition::Release).await;
        settle(&*consumer, held, &Disposition::Ack).await;
        settle(&*consumer, requeued, &Disposition::Requeue).await;
        let mut came = receive(&*consumer, 2).await;
        came.sort_by_key(|delivery| delivery.message.properties.correlation_id.clone());
        assert_eq!(numbers(&came), [2, 3]);
        let counts: Vec<_> = came.iter().map(|delivery| delivery.delivery_count).collect();
        assert_eq!(counts, [1, 2], "released and requeued, {kind:?}");
        settle(&*consumer, came, &Disposition::Ack).await;
        let is_empty = |queues: &[crate::rabbitmq::Queue]| {
            queues.iter().all(|queue| queue.name == "clock" || queue.is_empty())
        };
        server.until(&vhost, is_empty).await.unwrap();
        consumer.close(&[]).await.unwrap();
    }
}

/// What is brought elsewhere to be held on to comes back when we die.
#[tokio::test]
async fn what_is_held_on_to_comes_back_when_we_die() {
    let place = Place::new().await;
    let mut options = place.options(rwork_amqp::QueueType::Classic);
    // Long enough for nothing to be moved a second time before we are dead.
    options.consumer_timeout = Duration::from_secs(3);
    let doomed = connect(options).await;
    send(&doomed, &celery(), 0..3).await;
    let consumer = consume(&doomed, &[&celery()], 3).await;
    let held = receive(&*consumer, 3).await;
    let is_moved = |queues: &[crate::rabbitmq::Queue]| {
        queues.iter().any(|queue| queue.name.starts_with("rwork.held.") && queue.unsettled == 3)
            && queues.iter().any(|queue| queue.name == "celery" && queue.unsettled == 0)
    };
    place.server.until(&place.vhost, is_moved).await.unwrap();
    // Copies take every place there is, so that we consume nothing else: what comes home while we die can't be given to
    // us once more, which the server would tell of as one more delivery.
    let consumers = place.server.consumers(&place.vhost).await.unwrap();
    assert!(consumers.iter().all(|consumer| consumer["queue_name"] != "celery"), "{consumers:?}");
    drop((consumer, doomed, held));
    place.until("celery", 3, 0).await;
    let broker = place.classic().await;
    let consumer = consume(&broker, &[&celery()], 3).await;
    let came = receive(&*consumer, 3).await;
    assert!(came.iter().all(|delivery| delivery.delivery_count == 2 && delivery.redelivered), "{came:?}");
    assert!(came.iter().all(|delivery| delivery.queue == celery()));
}

/// A failed publish closes its channel, and nobody else's batch.
#[tokio::test]
async fn a_refused_batch_harms_no_other() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let nowhere = Route { exchange: "nowhere".to_owned(), routing_key: "celery".to_owned() };
    let wrong = || vec![Publish { route: nowhere.clone(), message: message(0), not_before: None }];
    let unbound = Route { exchange: "amq.topic".to_owned(), routing_key: "celery".to_owned() };
    let lost = vec![Publish { route: unbound, message: message(0), not_before: None }];
    let fifty =
        |from: usize| (from..from + 50).map(|number| to(&celery(), message(number))).collect::<Vec<_>>();
    let (one, refused, two, unroutable, three) = tokio::join!(
        broker.publish_all(fifty(0)),
        broker.publish_all(wrong()),
        broker.publish_all(fifty(50)),
        broker.publish_all(lost),
        broker.publish_all(fifty(100)),
    );
    one.unwrap();
    two.unwrap();
    three.unwrap();
    assert!(refused.is_err());
    assert!(matches!(unroutable, Err(Error::Act { retryable: false, .. })), "{unroutable:?}");
    place.until("celery", 150, 0).await;
    place.stranger().await.queue_purge("celery".into(), QueuePurgeOptions::default()).await.unwrap();
}
