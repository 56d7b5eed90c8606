//! How much the server sees unacked, whatever happens: never more than was agreed on, and none of it idle.

use std::time::Duration;

use rwork_amqp::QueueType;
use rwork_broker::Disposition;
use rwork_protocol::QueueName;

use crate::place::{Place, celery, connect, consume, numbers, receive, room, send, settle};
use crate::rabbitmq::Queue;

const LIMIT: usize = 10;

fn unsettled(queues: &[Queue], name: &str) -> u64 {
    queues.iter().filter(|queue| queue.name.starts_with(name)).map(|queue| queue.unsettled).sum()
}

/// What the server may send of a queue by now.
async fn credit(place: &Place, queue: &QueueName) -> u64 {
    let consumers = place.server.consumers(&place.vhost).await.unwrap();
    let of_queue = consumers.iter().filter(|consumer| consumer["queue_name"] == queue.as_str());
    of_queue.filter_map(|consumer| consumer["prefetch_count"].as_u64()).sum()
}

/// A queue with nothing in it leaves all but one place to another, and gets its part when it needs it.
#[tokio::test]
async fn queues_share_what_may_be_held() {
    let place = Place::new().await;
    for (name, broker) in [("classic", place.classic().await), ("quorum", place.quorum().await)] {
        let [quiet, busy] = ["quiet", "busy"].map(|part| QueueName::new(format!("{part}.{name}")).unwrap());
        let consumer = consume(&broker, &[&quiet, &busy], LIMIT).await;
        send(&broker, &busy, 0..30).await;
        let mut held = receive(&*consumer, LIMIT - 1).await;
        assert_eq!(numbers(&held), (0..LIMIT - 1).collect::<Vec<_>>());
        assert_eq!((credit(&place, &busy).await, credit(&place, &quiet).await), (9, 1));

        send(&broker, &quiet, 100..110).await;
        assert_eq!(numbers(&receive(&*consumer, 1).await), [100]);
        let more = receive(&*consumer, 4);
        let settled = async {
            while credit(&place, &busy).await > LIMIT as u64 / 2 {}
            let all = place.server.queues(&place.vhost).await.unwrap();
            assert_eq!((unsettled(&all, busy.as_str()), unsettled(&all, quiet.as_str())), (9, 1), "{all:?}");
            settle(&*consumer, held.split_off(5), &Disposition::Ack).await;
        };
        let (came, ()) = tokio::join!(more, settled);
        assert_eq!(numbers(&came), [101, 102, 103, 104], "its part");
        let is_shared = |queues: &[Queue]| {
            let (busy, quiet) = (unsettled(queues, busy.as_str()), unsettled(queues, quiet.as_str()));
            assert!(busy + quiet <= LIMIT as u64, "{queues:?}");
            (busy, quiet) == (5, 5)
        };
        place.server.until(&place.vhost, is_shared).await.unwrap();
        settle(&*consumer, held, &Disposition::Ack).await;
        settle(&*consumer, came, &Disposition::Ack).await;
        let mut left = numbers(&receive(&*consumer, LIMIT - 1).await);
        left.retain(|number| *number < 100);
        assert!(left.len() >= 4, "neither waits for the other: {left:?}");
        consumer.close(&[]).await.unwrap();
    }
}

/// What a dead worker held is published once more to be counted, and keeps its places meanwhile.
#[tokio::test]
async fn redelivered_messages_take_no_more_places_than_others() {
    let place = Place::new().await;
    let broker = place.classic().await;
    send(&broker, &celery(), 0..30).await;
    let doomed = consume(&broker, &[&celery()], LIMIT).await;
    let held = receive(&*doomed, LIMIT).await;
    // As if it had died: another process knows nothing of what it did.
    let broker = place.classic().await;
    drop((held, doomed));
    place.until("celery", 30, 0).await;
    let consumer = consume(&broker, &[&celery()], LIMIT).await;
    let mut all = Vec::new();
    let is_full = |queues: &[Queue]| {
        let here = queues.iter().find(|queue| queue.name == "celery").map(|queue| queue.ready);
        let held = unsettled(queues, "celery") + unsettled(queues, "rwork.held.");
        here.is_some_and(|ready| ready + held == 30) && held == LIMIT as u64
    };
    let mut came = Vec::new();
    while came.len() < LIMIT - 1 {
        came.extend(consumer.receive(room(LIMIT)).await.unwrap());
    }
    tokio::select! {
        early = consumer.receive(room(LIMIT)) => panic!("there is no place left for a copy: {early:?}"),
        full = place.server.until(&place.vhost, is_full) => full.unwrap(),
    }
    assert!(came.iter().all(|delivery| delivery.delivery_count == 2), "{came:?}");
    all.extend(numbers(&came));
    settle(&*consumer, came, &Disposition::Ack).await;
    while all.len() < 30 {
        let came = receive(&*consumer, 1).await;
        all.extend(numbers(&came));
        settle(&*consumer, came, &Disposition::Ack).await;
    }
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
}

/// What is held on to beyond the server's patience is held elsewhere, and nothing comes in its place.
#[tokio::test]
async fn what_is_held_on_to_keeps_its_place() {
    let place = Place::new().await;
    for kind in [QueueType::Classic, QueueType::Quorum] {
        let mut options = place.options(kind);
        options.consumer_timeout = Duration::from_secs(1);
        let broker = connect(options).await;
        let queue = QueueName::new(format!("long.{kind:?}")).unwrap();
        send(&broker, &queue, 0..30).await;
        let consumer = consume(&broker, &[&queue], LIMIT).await;
        let held = receive(&*consumer, LIMIT).await;
        let is_moved = |queues: &[Queue]| {
            let ready = queues.iter().find(|found| found.name == queue.as_str()).map(|found| found.ready);
            ready == Some(20) && unsettled(queues, "rwork.held.") == LIMIT as u64
        };
        place.server.until(&place.vhost, is_moved).await.unwrap();
        settle(&*consumer, held, &Disposition::Ack).await;
        let came = receive(&*consumer, LIMIT).await;
        assert_eq!(numbers(&came), (LIMIT..2 * LIMIT).collect::<Vec<_>>());
        consumer.close(&[]).await.unwrap();
    }
}
