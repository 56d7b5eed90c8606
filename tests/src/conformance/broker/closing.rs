//! Fate of deliveries whose consumer is closed.

use super::endings::unmarked;
use super::*;

pub(super) async fn a_closed_consumer_gives_back_unmarked(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("closed").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..5)).await?;
    let first = Consuming::start(&broker, &[&queue]).await?;
    let held = first.receive(3).await?;
    let second = Consuming::start(&broker, &[&queue]).await?;
    first.close().await?;
    let came = second.receive(5).await?;
    ensure!(sorted(&came) == [0, 1, 2, 3, 4], "got {:?}", numbers(&came));
    for delivery in &came {
        unmarked(&broker, delivery)?;
    }
    ensure!(first.consumer.receive(room(1)).await.is_err(), "a closed consumer receives");
    let late = held.into_iter().map(|delivery| end(delivery, Disposition::Ack)).collect();
    // A driver may answer or refuse; it must not end what the other holds.
    if let Ok(answers) = first.commit(late).await {
        ensure!(answers == vec![Committed::Lost; 3], "got {answers:?}");
    }
    first.close().await?;
    second.end(came, &Disposition::Ack).await
}

pub(super) async fn what_had_started_is_marked_at_the_close(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("closed-started").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..4)).await?;
    let first = Consuming::start(&broker, &[&queue]).await?;
    let held = first.receive(4).await?;
    let started: Vec<Receipt> = held.iter().skip(1).step_by(2).map(|delivery| delivery.receipt).collect();
    first.consumer.close(&started).await?;
    let second = Consuming::start(&broker, &[&queue]).await?;
    let came = second.receive(4).await?;
    ensure!(sorted(&came) == [0, 1, 2, 3], "got {:?}", numbers(&came));
    for delivery in &came {
        let had_started = numbers(std::slice::from_ref(delivery)).iter().all(|number| number % 2 == 1);
        if had_started {
            ensure!(delivery.redelivered, "it may have begun and is not marked: {delivery:?}");
        } else {
            unmarked(&broker, delivery)?;
        }
        if broker.capabilities().counts_deliveries {
            ensure!(delivery.delivery_count == 1, "a close was counted: {delivery:?}");
        }
    }
    second.end(came, &Disposition::Ack).await
}
