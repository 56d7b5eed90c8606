//! What comes, in which order, how much of it, and how it is counted.

use rwork_amqp::QueueType;
use rwork_broker::{Broker as _, Committed, Disposition, PriorityOrder};
use rwork_protocol::QueueName;

use crate::place::{
    Place, batch, celery, connect, consume, message, numbers, receive, room, send, settle, settled, to,
};

#[tokio::test]
async fn priorities_come_highest_first() {
    let place = Place::new().await;
    let mut options = place.options(QueueType::Classic);
    options.max_priority = Some(10);
    let broker = connect(options).await;
    assert_eq!(broker.capabilities().priorities, Some(PriorityOrder::HighFirst));
    let with = |number: usize, priority| {
        let mut message = message(number);
        message.properties.priority = Some(priority);
        to(&celery(), message)
    };
    broker.publish_all(vec![with(0, 3), with(1, 9), with(2, 0), with(3, 9)]).await.unwrap();
    let consumer = consume(&broker, &[&celery()], 8).await;
    assert_eq!(numbers(&receive(&*consumer, 4).await), [1, 3, 0, 2]);
}

/// Credit grows with what is asked for, by a consumer more each time, and their messages come in one order.
#[tokio::test]
async fn more_credit_keeps_the_order_and_the_limit() {
    let place = Place::new().await;
    for broker in [place.classic().await, place.quorum().await] {
        let queue = QueueName::new(format!("q{:p}", &raw const *broker)).unwrap();
        send(&broker, &queue, 0..100).await;
        let consumer = consume(&broker, &[&queue], 40).await;
        let mut held = Vec::new();
        for (max, most) in [(1, 1), (2, 4), (5, 8), (12, 20), (1000, 40)] {
            held.extend(receive(&*consumer, max.min(40 - held.len())).await);
            let (ready, unsettled) = place.counts(queue.as_str()).await;
            assert!(
                unsettled <= most && unsettled as usize >= held.len(),
                "asked {max}: {unsettled} unsettled"
            );
            assert_eq!(ready + unsettled, 100);
        }
        assert_eq!(numbers(&held), (0..40).collect::<Vec<_>>());
        // The last first, so that no ack stands for another; then one that stands for all the others.
        let tail = held.split_off(39);
        settle(&*consumer, tail, &Disposition::Ack).await;
        place.until(queue.as_str(), 59, 40).await;
        settle(&*consumer, held, &Disposition::Ack).await;
        place.until(queue.as_str(), 20, 40).await;
        assert_eq!(numbers(&receive(&*consumer, 40).await), (40..80).collect::<Vec<_>>());
        consumer.close(&[]).await.unwrap();
        place.until(queue.as_str(), 60, 0).await;
    }
}

/// Nothing that is acked stands for what is still held.
#[tokio::test]
async fn acks_out_of_order_settle_themselves_alone() {
    let place = Place::new().await;
    let broker = place.classic().await;
    send(&broker, &celery(), 0..9).await;
    let consumer = consume(&broker, &[&celery()], 9).await;
    let mut held = receive(&*consumer, 9).await;
    let kept: Vec<_> = [6, 4, 0].into_iter().map(|place| held.remove(place)).collect();
    settle(&*consumer, held, &Disposition::Ack).await;
    place.until("celery", 0, 3).await;
    drop(consumer);
    place.until("celery", 3, 0).await;
    let consumer = consume(&broker, &[&celery()], 9).await;
    let mut came = numbers(&receive(&*consumer, 3).await);
    came.sort_unstable();
    let mut expected = numbers(&kept);
    expected.sort_unstable();
    assert_eq!(came, expected);
}

/// Whoever dies does not take the count along, on either kind of queue.
#[tokio::test]
async fn deliveries_of_the_dead_are_counted() {
    let place = Place::new().await;
    for broker in [place.classic().await, place.quorum().await] {
        let queue = QueueName::new(format!("q{:p}", &raw const *broker)).unwrap();
        send(&broker, &queue, 0..2).await;
        for count in 1..=4 {
            let consumer = consume(&broker, &[&queue], 4).await;
            let came = receive(&*consumer, 2).await;
            for delivery in &came {
                assert_eq!(
                    (delivery.delivery_count, delivery.redelivered),
                    (count, count > 1),
                    "{delivery:?}"
                );
            }
            drop(consumer);
            place.until(queue.as_str(), 2, 0).await;
        }
        let consumer = consume(&broker, &[&queue], 4).await;
        let came = receive(&*consumer, 2).await;
        assert_eq!(
            came[0].message.headers,
            message(numbers(&came)[0]).headers,
            "the count is nobody's header"
        );
        settle(&*consumer, came, &Disposition::Requeue).await;
        let came = receive(&*consumer, 2).await;
        assert!(came.iter().all(|delivery| delivery.delivery_count == 6), "{came:?}");
        settle(&*consumer, came, &Disposition::Ack).await;
        place.until(queue.as_str(), 0, 0).await;
        consumer.close(&[]).await.unwrap();
    }
}

/// What is given back was not delivered, also when it had been brought elsewhere to be counted.
#[tokio::test]
async fn what_is_given_back_is_not_counted() {
    let place = Place::new().await;
    let broker = place.classic().await;
    send(&broker, &celery(), 0..1).await;
    drop(receive_one(&*consume(&broker, &[&celery()], 4).await).await);
    place.until("celery", 1, 0).await;
    for _ in 0..3 {
        let consumer = consume(&broker, &[&celery()], 4).await;
        assert_eq!(receive_one(&*consumer).await.delivery_count, 2);
        consumer.close(&[]).await.unwrap();
        place.until("celery", 1, 0).await;
    }
    let consumer = consume(&broker, &[&celery()], 4).await;
    for _ in 0..3 {
        let came = receive_one(&*consumer).await;
        assert_eq!(came.delivery_count, 2);
        let released = batch(vec![settled(came, &Disposition::Release)]);
        assert_eq!(consumer.commit(&released).await.unwrap(), [Committed::Done]);
    }
}

async fn receive_one(consumer: &dyn rwork_broker::Consumer) -> rwork_broker::Delivery {
    receive(consumer, 1).await.remove(0)
}

/// A quorum queue of RabbitMQ 3.10 puts what comes back at its end; others get it soon when nobody here wants it.
#[tokio::test]
async fn what_is_released_and_not_wanted_goes_to_others() {
    let place = Place::new().await;
    let broker = place.quorum().await;
    send(&broker, &celery(), 0..3).await;
    let going = consume(&broker, &[&celery()], 4).await;
    settle(&*going, receive(&*going, 3).await, &Disposition::Release).await;
    let staying = consume(&broker, &[&celery()], 4).await;
    // The first one still has its credit, so that the server may well offer it the messages once more.
    let mut came = Vec::new();
    while came.len() < 3 {
        tokio::select! {
            batch = staying.receive(room(3)) => came.extend(numbers(&batch.unwrap())),
            batch = going.receive(room(3)) => came.extend(numbers(&batch.unwrap())),
        }
    }
    came.sort_unstable();
    assert_eq!(came, [0, 1, 2]);
}
