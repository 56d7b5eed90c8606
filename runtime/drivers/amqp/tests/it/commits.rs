//! Follow-ups and the end of a delivery, in one step.

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_broker::{
    Broker as _, Committed, Consumer, Delivery, Disposition, Ending, Error, Part, Publish, Receipt, Room,
    Route,
};
use rwork_protocol::QueueName;

use crate::place::{Place, batch, celery, consume, ended, message, receive, send, settled, to};

fn ack(delivery: Delivery) -> Ending {
    Ending::Settle(delivery.settle(Disposition::Ack))
}

fn next() -> QueueName {
    QueueName::new("next").unwrap()
}

fn nowhere(number: usize) -> Publish {
    let route = Route { exchange: "nowhere".to_owned(), routing_key: "celery".to_owned() };
    Publish { route, message: message(number), not_before: None }
}

async fn held(consumer: &dyn Consumer, count: usize) -> std::vec::IntoIter<Delivery> {
    receive(consumer, count).await.into_iter()
}

#[tokio::test]
async fn each_commit_of_a_batch_answers_for_itself() {
    let place = Place::new().await;
    for (broker, name) in [(place.classic().await, "classic"), (place.quorum().await, "quorum")] {
        let (queue, next) = (QueueName::new(name).unwrap(), QueueName::new(format!("{name}.next")).unwrap());
        send(&broker, &queue, 0..6).await;
        let consumer = consume(&broker, &[&queue], 6).await;
        let mut held = held(&*consumer, 6).await;
        let mut one = || held.next().unwrap();
        let (lost, started, holding) = (one(), one(), one());
        let gone = batch(vec![settled(lost.clone(), &Disposition::Ack)]);
        assert_eq!(consumer.commit(&gone).await.unwrap(), [Committed::Done]);
        let commits = batch(vec![
            ended(ack(one()), vec![to(&next, message(10))]),
            ended(ack(one()), vec![to(&next, message(98)), nowhere(99)]),
            ended(ack(lost), vec![to(&next, message(97))]),
            ended(Ending::Starting(started.receipt), Vec::new()),
            ended(Ending::Holds(holding.receipt), vec![to(&next, message(11))]),
            ended(Ending::Holds(Receipt(u64::MAX)), vec![to(&next, message(96))]),
            ended(Ending::Unfenced, vec![to(&next, message(12))]),
            ended(ack(one()), Vec::new()),
        ]);
        let answers = consumer.commit(&commits).await.unwrap();
        let Committed::Refused(refusal) = &answers[1] else { panic!("{answers:?}") };
        assert_eq!(refusal.part, Part::FollowUp);
        assert!(refusal.why.contains("nowhere"), "{refusal:?}");
        let others = [0, 2, 3, 4, 5, 6, 7].map(|place| answers[place].clone());
        use Committed::{Done, Lost};
        assert_eq!(others, [Done, Lost, Done, Done, Lost, Done, Done]);
        // The same again changes nothing.
        assert_eq!(consumer.commit(&commits).await.unwrap(), answers);
        place.until(name, 0, 3).await;
        // What went with the refused one may be there, as AMQP has no transaction over several queues.
        let expected = if place.counts(next.as_str()).await.0 == 4 { 4 } else { 3 };
        place.until(next.as_str(), expected, 0).await;
        let stale = consumer.commit(&rwork_broker::Batch { number: commits.number - 1, ..commits }).await;
        assert!(matches!(stale, Err(Error::LeaseLost { .. })), "{stale:?}");
        consumer.close(&[started.receipt]).await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_batch_publishes_only_what_was_not_confirmed() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let channel = place.stranger().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let narrow: ShortString = "narrow".into();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(narrow.clone(), durable, arguments).await.unwrap();
    let full = QueueName::new("narrow").unwrap();
    send(&broker, &full, 50..51).await;
    send(&broker, &celery(), 0..2).await;
    let consumer = consume(&broker, &[&celery()], 4).await;
    let mut held = held(&*consumer, 2).await;
    let commits = batch(vec![
        ended(ack(held.next().unwrap()), vec![to(&next(), message(10)), to(&full, message(11))]),
        ended(ack(held.next().unwrap()), vec![to(&next(), message(12))]),
    ]);
    for _ in 0..3 {
        let answer = consumer.commit(&commits).await;
        assert!(answer.as_ref().is_err_and(Error::is_retryable), "{answer:?}");
        // The other one has ended.
        place.until("celery", 0, 1).await;
    }
    let taken = channel.basic_get(narrow, BasicGetOptions { no_ack: true }).await.unwrap();
    assert!(taken.is_some());
    assert_eq!(consumer.commit(&commits).await.unwrap(), [Committed::Done, Committed::Done]);
    place.until("celery", 0, 0).await;
    place.until("next", 2, 0).await;
    place.until("narrow", 1, 0).await;
}

#[tokio::test]
async fn a_queue_of_somebody_elses_holds_up_nothing() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let stranger = place.stranger().await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    stranger.queue_declare("taken".into(), exclusive, FieldTable::default()).await.unwrap();
    send(&broker, &celery(), 0..2).await;
    let consumer = consume(&broker, &[&celery()], 4).await;
    let mut held = held(&*consumer, 2).await;
    let taken = QueueName::new("taken").unwrap();
    let commits = batch(vec![
        ended(ack(held.next().unwrap()), vec![to(&taken, message(1))]),
        ended(ack(held.next().unwrap()), vec![to(&next(), message(2))]),
    ]);
    let answers = consumer.commit(&commits).await.unwrap();
    assert!(
        matches!(&answers[0], Committed::Refused(refusal) if refusal.part == Part::FollowUp),
        "{answers:?}"
    );
    assert_eq!(answers[1], Committed::Done);
}

#[tokio::test]
async fn one_refused_message_stops_no_other() {
    let place = Place::new().await;
    let broker = place.classic().await;
    let mut late = message(3);
    late.properties.expiration = Some("soon".to_owned());
    let sent = vec![to(&celery(), message(0)), nowhere(1), to(&celery(), late), to(&celery(), message(4))];
    let outcomes = broker.publish(sent).await.unwrap();
    let is_accepted: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(is_accepted, [true, false, false, true], "{outcomes:?}");
    place.until("celery", 2, 0).await;
}

#[tokio::test]
async fn bytes_bound_what_is_taken() {
    let place = Place::new().await;
    let broker = place.classic().await;
    send(&broker, &celery(), 0..9).await;
    let consumer = consume(&broker, &[&celery()], 9).await;
    let mut came = receive(&*consumer, 2).await;
    for expect in 3..=9 {
        came.extend(consumer.receive(Room { messages: 9, bytes: 1 }).await.unwrap());
        assert_eq!(came.len(), expect, "one at a time");
    }
}
