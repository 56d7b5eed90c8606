//! Messages that the broker holds back.

use std::time::{Duration, SystemTime};

use super::*;
use rwork_broker::Error;

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn at(queue: &QueueName, number: usize, time: Timestamp) -> Publish {
    Publish { not_before: Some(time), ..to(queue, message(number)) }
}

pub(super) async fn delayed_messages_wait_for_their_time(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("delayed").await?;
    let queue = queue("celery")?;
    let due = now().plus(Duration::from_millis(300));
    let publish = vec![at(&queue, 0, due), at(&queue, 1, Timestamp::from_millis(1)), to(&queue, message(2))];
    let sent = broker.publish(publish).await?;
    if !broker.capabilities().delayed {
        let refused = matches!(sent.first(), Some(Err(Error::Unsupported { .. })));
        ensure!(refused, "expected `Unsupported`, got {sent:?}");
        return Ok(());
    }
    ensure!(sent.iter().all(Result::is_ok), "got {sent:?}");
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let _alive = consumer.live();
    let mut came = Vec::new();
    while came.len() < 3 {
        for delivery in consumer.consumer.receive(room(3)).await? {
            let early = numbers(std::slice::from_ref(&delivery)) == [0] && now() < due;
            ensure!(!early, "a delayed message came before its time");
            ensure!(!delivery.redelivered && delivery.delivery_count == 1, "waiting was counted");
            came.push(delivery);
        }
    }
    let all = sorted(&came);
    ensure!(all == [0, 1, 2], "got {all:?}");
    Ok(())
}

pub(super) async fn many_delayed_messages_come_by_their_time(site: &Site<'_>) -> Result<()> {
    const COUNT: u32 = 30;
    let broker = site.connect("delayed-many").await?;
    if !broker.capabilities().delayed {
        return Ok(());
    }
    let queue = queue("celery")?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let _alive = consumer.live();
    let start = now();
    // The later a message is sent, the earlier it is due.
    let times: Vec<_> =
        (0..COUNT).map(|number| start.plus(Duration::from_millis(10) * (2 * COUNT - number))).collect();
    let batch = times.iter().enumerate().map(|(number, time)| at(&queue, number, *time)).collect();
    broker.publish_all(batch).await?;
    let mut came = Vec::new();
    while came.len() < times.len() {
        for delivery in consumer.consumer.receive(room(times.len())).await? {
            let number = numbers(std::slice::from_ref(&delivery));
            let due = number.first().and_then(|number| times.get(*number));
            ensure!(due.is_some_and(|due| now() >= *due), "{number:?} came before its time");
            came.push(delivery);
        }
    }
    let all = sorted(&came);
    ensure!(all == (0..times.len()).collect::<Vec<_>>(), "got {all:?}");
    consumer.end(came, &Disposition::Ack).await
}
