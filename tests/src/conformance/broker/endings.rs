//! Endings of deliveries, and the bounds of what a consumer may hold.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::*;

pub(super) async fn acked_messages_are_gone(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("acked").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..10)).await?;
    let first = Consuming::start(&broker, &[&queue]).await?;
    first.end(first.receive(10).await?, &Disposition::Ack).await?;
    first.close().await?;
    let second = Consuming::start(&broker, &[&queue]).await?;
    nothing_but_a_marker(&broker, &second, &queue).await
}

pub(super) async fn ending_twice_is_harmless(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("twice").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let delivery = consumer.receive_one().await?;
    // Given back, and then acked by mistake: the message comes again, and the mistake must not end that delivery.
    let ack = end(delivery.clone(), Disposition::Ack);
    let answers = consumer.commit(vec![end(delivery, Disposition::Release), ack.clone()]).await?;
    ensure!(answers == [Committed::Done, Committed::Lost], "got {answers:?}");
    let again = consumer.receive(1).await?;
    ensure!(numbers(&again) == [0]);
    ensure!(
        consumer.commit(vec![ack.clone()]).await? == [Committed::Lost],
        "an old receipt ended a new delivery"
    );
    consumer.end(again, &Disposition::Ack).await?;
    ensure!(consumer.commit(vec![ack]).await? == [Committed::Lost]);
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn released_messages_come_first_and_unmarked(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("released").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..6)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    consumer.end(consumer.receive(3).await?, &Disposition::Release).await?;
    let came = consumer.receive(6).await?;
    ensure!(numbers(&came) == [0, 1, 2, 3, 4, 5], "got {:?}", numbers(&came));
    for delivery in &came {
        unmarked(&broker, delivery)?;
    }
    Ok(())
}

/// A message that was given back looks as if it had never been taken. AMQP's servers mark it themselves.
pub(super) fn unmarked(broker: &Arc<dyn Broker>, delivery: &Delivery) -> Result<()> {
    let capabilities = broker.capabilities();
    if capabilities.counts_deliveries {
        ensure!(delivery.delivery_count == 1, "giving back was counted: {delivery:?}");
    }
    if capabilities.ownership != Ownership::Connection {
        ensure!(!delivery.redelivered, "giving back was marked: {delivery:?}");
    }
    Ok(())
}

pub(super) async fn requeued_messages_are_marked_and_counted(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("requeued").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    for count in 1..=4 {
        let came = consumer.receive(1).await?;
        ensure!(came.iter().all(|delivery| delivery.redelivered == (count > 1)), "`redelivered`, {count}");
        if broker.capabilities().counts_deliveries {
            ensure!(came.iter().all(|delivery| delivery.delivery_count == count), "not {count}: {came:?}");
        }
        consumer.end(came, &Disposition::Requeue).await?;
    }
    Ok(())
}

pub(super) async fn a_delayed_delivery_comes_at_its_time_as_new(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("delay").await?;
    if !broker.capabilities().delayed {
        return Ok(());
    }
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..2)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let _alive = consumer.live();
    let [first, second] = consumer.receive(2).await?.try_into().map_err(|_| anyhow::anyhow!("not two"))?;
    let now = || Timestamp::from_system(SystemTime::now());
    let due = now().plus(Duration::from_millis(300));
    let past = Disposition::Delay(Timestamp::from_millis(1));
    consumer.done(vec![end(first, Disposition::Delay(due)), end(second, past)]).await?;
    let came = consumer.receive(2).await?;
    ensure!(numbers(&came) == [1, 0], "got {:?}", numbers(&came));
    ensure!(now() >= due, "a delayed message came before its time");
    ensure!(came.iter().all(|delivery| !delivery.redelivered && delivery.delivery_count == 1), "{came:?}");
    consumer.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn a_batch_is_answered_in_order(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("answers").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..4)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let ends =
        [Disposition::Ack, Disposition::DeadLetter(reason("no")), Disposition::Requeue, Disposition::Release];
    let came = consumer.receive(4).await?;
    let ended: Vec<Commit> = came.into_iter().zip(ends).map(|(delivery, how)| end(delivery, how)).collect();
    let again = ended.first().cloned();
    let answers = consumer.commit(ended.into_iter().chain(again).collect()).await?;
    let done = Committed::Done;
    ensure!(answers == [done.clone(), done.clone(), done.clone(), done, Committed::Lost], "got {answers:?}");
    let left = sorted(&consumer.receive(2).await?);
    ensure!(left == [2, 3], "got {left:?}");
    Ok(())
}

pub(super) async fn no_more_is_held_than_agreed(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("bounded").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..10)).await?;
    let options = Consume { queues: vec![queue.clone()], name: "suite@host".to_owned(), unsettled_max: 4 };
    let consumer = Consuming::with(&broker, options).await?;
    let mut held = consumer.receive(4).await?;
    // Full: an ending makes room, and only then more comes.
    let rest = held.split_off(1);
    let more = consumer.consumer.receive(room(10));
    tokio::pin!(more);
    // An answer to another question shows that the driver had its time to hand out too many.
    tokio::select! {
        early = &mut more => anyhow::bail!("more than `unsettled_max` were handed out: {early:?}"),
        infos = broker.queues() => ensure!(infos?.iter().any(|info| info.ready == 6 && info.unsettled == 4)),
    }
    consumer.end(held, &Disposition::Ack).await?;
    let came = more.await?;
    ensure!(numbers(&came) == [4], "got {:?}", numbers(&came));
    consumer.end(rest.into_iter().chain(came).collect(), &Disposition::Ack).await?;
    ensure!(numbers(&consumer.receive(4).await?) == [5, 6, 7, 8]);
    Ok(())
}

pub(super) async fn no_more_bytes_are_taken_than_there_is_room_for(site: &Site<'_>) -> Result<()> {
    const COUNT: usize = 12;
    const BODY: usize = 1_000;
    const BYTES: usize = 3 * BODY;
    let broker = site.connect("bytes").await?;
    let queue = queue("celery")?;
    let large = |number| Message { body: Bytes::from(vec![b'x'; BODY]), ..message(number) };
    broker.publish_all((0..COUNT).map(|number| to(&queue, large(number))).collect()).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let mut came = Vec::new();
    while came.len() < COUNT {
        let batch = consumer.consumer.receive(Room { messages: COUNT, bytes: BYTES }).await?;
        let sizes = batch.iter().map(|delivery| delivery.message.size());
        let but_the_last: usize = sizes.take(batch.len().saturating_sub(1)).sum();
        ensure!(but_the_last < BYTES, "{} messages went beyond the room", batch.len());
        came.extend(batch);
    }
    ensure!(numbers(&came) == (0..COUNT).collect::<Vec<_>>(), "got {:?}", numbers(&came));
    consumer.end(came, &Disposition::Ack).await
}

pub(super) async fn a_cancelled_receive_loses_nothing(site: &Site<'_>) -> Result<()> {
    const COUNT: usize = 300;
    /// Different for each call, so that calls end before, while and after messages are on the way to them.
    const YIELDS: usize = 400;
    let broker = site.connect("cancelled").await?;
    let queue = queue("celery")?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    broker.publish_all(numbered(&queue, 0..COUNT)).await?;
    let mut came = Vec::new();
    for call in 0.. {
        let cancelled = async {
            for _ in 0..call * 7 % YIELDS {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            batch = consumer.consumer.receive(room(2)) => came.extend(batch?),
            () = cancelled => {}
        }
        if came.len() >= COUNT {
            break;
        }
    }
    let distinct: BTreeSet<usize> = numbers(&came).into_iter().collect();
    ensure!(distinct.len() == COUNT, "some came twice: {:?}", numbers(&came));
    if broker.capabilities().counts_deliveries {
        ensure!(came.iter().all(|delivery| delivery.delivery_count == 1), "a cancelled call was counted");
    }
    consumer.end(came, &Disposition::Ack).await
}

pub(super) async fn two_consumers_share_without_duplicates(site: &Site<'_>) -> Result<()> {
    const COUNT: usize = 400;
    let queue = queue("celery")?;
    let (first, second) = (site.connect("shared").await?, site.connect("shared").await?);
    let left = Consuming::start(&first, &[&queue]).await?;
    let right = Consuming::start(&second, &[&queue]).await?;
    for start in (0..COUNT).step_by(20) {
        first.publish_all(numbered(&queue, start..start + 20)).await?;
    }
    let mut came = Vec::new();
    while came.len() < COUNT {
        // `receive` is cancel safe, so that the loser of the race has lost nothing.
        let (batch, from) = tokio::select! {
            batch = left.consumer.receive(room(7)) => (batch?, &left),
            batch = right.consumer.receive(room(7)) => (batch?, &right),
        };
        came.extend(numbers(&batch));
        from.end(batch, &Disposition::Ack).await?;
    }
    came.sort_unstable();
    ensure!(came == (0..COUNT).collect::<Vec<_>>(), "lost or doubled");
    Ok(())
}
