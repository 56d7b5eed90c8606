//! Consumers dead and alive, and the fate of what they hold.

use std::time::Duration;

use rwork_broker::Error;

use super::*;

/// Short, so that a death is soon seen.
pub(super) const SHORT: Duration = Duration::from_millis(200);
/// Short, and long enough for a renewal to come in time on a busy machine.
const RENEWABLE: Duration = Duration::from_millis(1500);

pub(super) async fn a_dead_consumers_messages_come_back_uncounted(site: &Site<'_>) -> Result<()> {
    let place = Place { lease: SHORT, ..Place::new("dead-consumer") };
    let queue = queue("celery")?;
    let doomed = site.ground.connect(place.clone()).await?;
    doomed.publish_all(numbered(&queue, 0..5)).await?;
    let held = Consuming::start(&doomed, &[&queue]).await?.receive(3).await?;
    drop(doomed);
    let broker = site.ground.connect(place).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let _alive = consumer.live();
    let mut came = consumer.receive(5).await?;
    came.sort_by_key(|delivery| delivery.message.properties.correlation_id.clone());
    ensure!(numbers(&came) == [0, 1, 2, 3, 4], "got {:?}", numbers(&came));
    for (number, delivery) in came.iter().enumerate() {
        ensure!(delivery.redelivered == (number < held.len()), "`redelivered` of {number}");
        if broker.capabilities().counts_deliveries {
            ensure!(delivery.delivery_count == 1, "a death was counted: {delivery:?}");
        }
    }
    consumer.end(came, &Disposition::Ack).await
}

pub(super) async fn a_living_consumer_keeps_what_it_holds(site: &Site<'_>) -> Result<()> {
    let place = Place { lease: RENEWABLE, ..Place::new("living") };
    let queue = queue("celery")?;
    let broker = site.ground.connect(place.clone()).await?;
    let Some(lease) = broker.capabilities().ownership.lease() else { return Ok(()) };
    broker.publish_all(numbered(&queue, 0..2)).await?;
    let living = Consuming::start(&broker, &[&queue]).await?;
    let kept = living.receive(1).await?;
    // Longer than a lease without a renewal, while nobody looks: that is no death. It is the time itself that matters.
    tokio::time::sleep(lease * 3 / 2).await;
    let _alive = living.live();
    let doomed = site.ground.connect(place.clone()).await?;
    drop((Consuming::start(&doomed, &[&queue]).await?.receive(1).await?, doomed));
    // Message 1 comes back when a whole lease was observed without a renewal; message 0 must not.
    let watching = Consuming::start(&site.ground.connect(place).await?, &[&queue]).await?;
    let _watching_alive = watching.live();
    let came = watching.receive(1).await?;
    ensure!(numbers(&came) == [1], "got {:?}", numbers(&came));
    ensure!(numbers(&kept) == [0]);
    watching.end(came, &Disposition::Ack).await?;
    living.end(kept, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &watching, &queue).await
}

pub(super) async fn a_consumer_is_told_that_it_is_dead(site: &Site<'_>) -> Result<()> {
    let place = Place { lease: SHORT, ..Place::new("told") };
    let queue = queue("celery")?;
    let (late, other) = (site.ground.connect(place.clone()).await?, site.ground.connect(place).await?);
    if late.capabilities().ownership.lease().is_none() {
        return Ok(());
    }
    other.publish_all(numbered(&queue, 0..1)).await?;
    let sleeping = Consuming::start(&late, &[&queue]).await?;
    let lost = sleeping.receive_one().await?;
    let quick = Consuming::start(&other, &[&queue]).await?;
    let _alive = quick.live();
    let came = quick.receive(1).await?;
    ensure!(numbers(&came) == [0]);
    let renewed = sleeping.consumer.renew().await;
    ensure!(matches!(renewed, Ok(false) | Err(Error::LeaseLost { .. })), "a dead one renewed: {renewed:?}");
    let received = sleeping.consumer.receive(room(1)).await;
    ensure!(matches!(received, Err(Error::LeaseLost { .. })), "a dead consumer received {received:?}");
    let outcome = commit(Ending::Settle(lost.settle(Disposition::Ack)), numbered(&queue, 10..11));
    let answers = sleeping.commit(vec![outcome]).await;
    // What it holds no receipt for may still be done, once: a store that keeps its numbers answers each commit.
    let is_lost = match &answers {
        Ok(answers) => answers.iter().all(|answer| *answer == Committed::Lost),
        Err(error) => matches!(error, Error::LeaseLost { .. }),
    };
    ensure!(is_lost, "a dead consumer committed: {answers:?}");
    let resumed = sleeping.resume().await;
    ensure!(resumed == Resumed::Dead, "expected `Dead`, got {resumed:?}");
    sleeping.close().await?;
    quick.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&other, &quick, &queue).await?;
    quick.close().await?;
    // It begins anew, by the same connection.
    let anew = Consuming::start(&late, &[&queue]).await?;
    nothing_but_a_marker(&other, &anew, &queue).await
}
