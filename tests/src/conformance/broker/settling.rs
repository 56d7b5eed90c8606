//! How deliveries end, and what a consumer may hold.

use std::collections::BTreeSet;

use super::*;

pub(super) async fn acked_messages_are_gone(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("acked").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..10)).await?;
    let first = consumer(&broker, &[&queue]).await?;
    settle(&*first, receive(&*first, 10).await?, &Disposition::Ack).await?;
    first.close().await?;
    let second = consumer(&broker, &[&queue]).await?;
    nothing_but_a_marker(&broker, &*second, &queue).await
}

pub(super) async fn settling_twice_is_harmless(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("twice").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..1)).await?;
    let consumer = consumer(&broker, &[&queue]).await?;
    let Some(delivery) = receive(&*consumer, 1).await?.pop() else { anyhow::bail!("nothing came") };
    // Given back, and then acked by mistake: the message comes again, and the mistake must not settle that delivery.
    let ack = delivery.clone().settle(Disposition::Ack);
    let settled = consumer.settle(vec![delivery.settle(Disposition::Release), ack.clone()]).await?;
    ensure!(settled == [Settled::Done, Settled::Lost], "got {settled:?}");
    let again = receive(&*consumer, 1).await?;
    ensure!(numbers(&again) == [0]);
    ensure!(
        consumer.settle(vec![ack.clone()]).await? == [Settled::Lost],
        "an old receipt settled a new delivery"
    );
    settle(&*consumer, again, &Disposition::Ack).await?;
    ensure!(consumer.settle(vec![ack]).await? == [Settled::Lost]);
    nothing_but_a_marker(&broker, &*consumer, &queue).await
}

pub(super) async fn released_messages_come_first_and_uncounted(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("released").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..6)).await?;
    let consumer = consumer(&broker, &[&queue]).await?;
    let held = receive(&*consumer, 3).await?;
    settle(&*consumer, held, &Disposition::Release).await?;
    let came = receive(&*consumer, 6).await?;
    ensure!(numbers(&came) == [0, 1, 2, 3, 4, 5], "got {:?}", numbers(&came));
    if broker.capabilities().counts_deliveries {
        ensure!(came.iter().all(|delivery| delivery.delivery_count == 1), "a release was counted");
    }
    Ok(())
}

pub(super) async fn requeued_messages_are_counted(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("requeued").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..1)).await?;
    let consumer = consumer(&broker, &[&queue]).await?;
    for count in 1..=4 {
        let came = receive(&*consumer, 1).await?;
        ensure!(came.iter().all(|delivery| delivery.redelivered == (count > 1)), "`redelivered`, {count}");
        if broker.capabilities().counts_deliveries {
            ensure!(came.iter().all(|delivery| delivery.delivery_count == count), "not {count}: {came:?}");
        }
        settle(&*consumer, came, &Disposition::Requeue).await?;
    }
    Ok(())
}

pub(super) async fn a_batch_is_answered_in_order(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("answers").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..4)).await?;
    let consumer = consumer(&broker, &[&queue]).await?;
    let ends =
        [Disposition::Ack, Disposition::DeadLetter(reason("no")), Disposition::Requeue, Disposition::Release];
    let came = receive(&*consumer, 4).await?;
    let ended = came.into_iter().zip(ends).map(|(delivery, end)| delivery.settle(end)).collect::<Vec<_>>();
    let again = ended.first().cloned();
    let settled = consumer.settle(ended.into_iter().chain(again).collect()).await?;
    let done = Settled::Done;
    ensure!(settled == [done, done, done, done, Settled::Lost], "got {settled:?}");
    let mut left = numbers(&receive(&*consumer, 2).await?);
    left.sort_unstable();
    ensure!(left == [2, 3], "got {left:?}");
    ensure!(consumer.settle(Vec::new()).await?.is_empty());
    Ok(())
}

pub(super) async fn a_closed_consumer_gives_back(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("closed").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..5)).await?;
    let first = consumer(&broker, &[&queue]).await?;
    let held = receive(&*first, 3).await?;
    let second = consumer(&broker, &[&queue]).await?;
    first.close().await?;
    let mut came = receive(&*second, 5).await?;
    came.sort_by_key(|delivery| delivery.message.properties.correlation_id.clone());
    ensure!(numbers(&came) == [0, 1, 2, 3, 4], "got {:?}", numbers(&came));
    if broker.capabilities().counts_deliveries {
        ensure!(came.iter().all(|delivery| delivery.delivery_count == 1), "giving back was counted");
    }
    ensure!(first.receive(1).await.is_err(), "a closed consumer receives");
    let late = held.into_iter().map(|delivery| delivery.settle(Disposition::Ack)).collect();
    // A driver may answer or refuse; it must not settle what the other holds.
    if let Ok(settled) = first.settle(late).await {
        ensure!(settled == [Settled::Lost; 3], "got {settled:?}");
    }
    settle(&*second, came, &Disposition::Ack).await
}

pub(super) async fn no_more_is_held_than_agreed(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("bounded").await?;
    let queue = queue("celery")?;
    broker.publish(numbered(&queue, 0..10)).await?;
    let consume = Consume { queues: vec![queue.clone()], name: "suite@host".to_owned(), unsettled_max: 4 };
    let consumer = broker.consume(consume).await?;
    let mut held = receive(&*consumer, 4).await?;
    // Full: a settlement makes room, and only then more comes.
    let rest = held.split_off(1);
    let more = consumer.receive(10);
    tokio::pin!(more);
    // An answer to another question shows that the driver had its time to hand out too many.
    tokio::select! {
        early = &mut more => anyhow::bail!("more than `unsettled_max` were handed out: {early:?}"),
        infos = broker.queues() => ensure!(infos?.iter().any(|info| info.ready == 6 && info.unsettled == 4)),
    }
    settle(&*consumer, held, &Disposition::Ack).await?;
    let came = more.await?;
    ensure!(numbers(&came) == [4], "got {:?}", numbers(&came));
    settle(&*consumer, rest.into_iter().chain(came).collect(), &Disposition::Ack).await?;
    ensure!(numbers(&receive(&*consumer, 4).await?) == [5, 6, 7, 8]);
    Ok(())
}

pub(super) async fn a_cancelled_receive_loses_nothing(site: &Site<'_>) -> Result<()> {
    const COUNT: usize = 300;
    /// Different for each call, so that calls end before, while and after messages are on the way to them.
    const YIELDS: usize = 400;
    let broker = site.connect("cancelled").await?;
    let queue = queue("celery")?;
    let consumer = consumer(&broker, &[&queue]).await?;
    broker.publish(numbered(&queue, 0..COUNT)).await?;
    let mut came = Vec::new();
    for call in 0.. {
        let cancelled = async {
            for _ in 0..call * 7 % YIELDS {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            batch = consumer.receive(2) => came.extend(batch?),
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
    settle(&*consumer, came, &Disposition::Ack).await
}

pub(super) async fn two_consumers_share_without_duplicates(site: &Site<'_>) -> Result<()> {
    const COUNT: usize = 400;
    let queue = queue("celery")?;
    let (first, second) = (site.connect("shared").await?, site.connect("shared").await?);
    let (left, right) = (consumer(&first, &[&queue]).await?, consumer(&second, &[&queue]).await?);
    for start in (0..COUNT).step_by(20) {
        first.publish(numbered(&queue, start..start + 20)).await?;
    }
    let mut came = Vec::new();
    while came.len() < COUNT {
        // `receive` is cancel safe, so that the loser of the race has lost nothing.
        let (batch, from) = tokio::select! {
            batch = left.receive(7) => (batch?, &left),
            batch = right.receive(7) => (batch?, &right),
        };
        came.extend(numbers(&batch));
        settle(&**from, batch, &Disposition::Ack).await?;
    }
    came.sort_unstable();
    ensure!(came == (0..COUNT).collect::<Vec<_>>(), "lost or doubled");
    Ok(())
}
