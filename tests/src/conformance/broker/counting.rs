//! Starts are counted, deliveries are not.

use super::*;

/// Takes the one message and dies with it, after a start was written down or not.
async fn die(site: &Site<'_>, place: &Place, queue: &QueueName, starts: bool) -> Result<Delivery> {
    let broker = site.ground.connect(place.clone()).await?;
    let consumer = Consuming::start(&broker, &[queue]).await?;
    let _alive = consumer.live();
    let delivery = consumer.receive_one().await?;
    if starts {
        consumer.done(vec![commit(Ending::Starting(delivery.receipt), Vec::new())]).await?;
    }
    Ok(delivery)
}

fn is(delivery: &Delivery, redelivered: bool, count: u32) -> Result<()> {
    let found = (delivery.redelivered, delivery.delivery_count);
    ensure!(found == (redelivered, count), "expected {:?}, got {found:?}", (redelivered, count));
    Ok(())
}

pub(super) async fn starts_are_counted_and_deliveries_are_not(site: &Site<'_>) -> Result<()> {
    let place = Place { lease: lives::SHORT, ..Place::new("counted-starts") };
    let queue = queue("celery")?;
    let broker = site.ground.connect(place.clone()).await?;
    if !broker.capabilities().counts_deliveries {
        return Ok(());
    }
    broker.publish_all(numbered(&queue, 0..1)).await?;
    // The first start is not written down; a consumer that only held the message is not counted either.
    is(&die(site, &place, &queue, false).await?, false, 1)?;
    is(&die(site, &place, &queue, false).await?, true, 1)?;
    is(&die(site, &place, &queue, true).await?, true, 1)?;
    is(&die(site, &place, &queue, true).await?, true, 2)?;
    is(&die(site, &place, &queue, false).await?, true, 3)?;
    let last = die(site, &place, &queue, false).await?;
    is(&last, true, 3)
}

pub(super) async fn what_was_interrupted_is_marked_and_not_counted(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("interrupted").await?;
    if !broker.capabilities().counts_deliveries {
        return Ok(());
    }
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let delivery = consumer.receive_one().await?;
    is(&delivery, false, 1)?;
    consumer.end(vec![delivery], &Disposition::Interrupt).await?;
    let delivery = consumer.receive_one().await?;
    is(&delivery, true, 1)?;
    // A start that was written down does not count either.
    consumer.done(vec![commit(Ending::Starting(delivery.receipt), Vec::new())]).await?;
    consumer.end(vec![delivery], &Disposition::Interrupt).await?;
    let delivery = consumer.receive_one().await?;
    is(&delivery, true, 1)?;
    consumer.end(vec![delivery], &Disposition::Ack).await
}

pub(super) async fn a_repeated_start_is_counted_once(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("counted-once").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let counts = broker.capabilities().counts_deliveries;
    for count in 1..=3 {
        let delivery = consumer.receive_one().await?;
        ensure!(!counts || delivery.delivery_count == count, "expected {count}: {delivery:?}");
        // Written twice, and once more by what sends it back: one start all the same.
        let starting = || commit(Ending::Starting(delivery.receipt), Vec::new());
        consumer.done(vec![starting()]).await?;
        consumer.done(vec![starting(), end(delivery.clone(), Disposition::Requeue)]).await?;
    }
    // Given back instead: it stays as it was.
    let delivery = consumer.receive_one().await?;
    consumer.end(vec![delivery], &Disposition::Release).await?;
    let delivery = consumer.receive_one().await?;
    ensure!(delivery.redelivered && (!counts || delivery.delivery_count == 4), "{delivery:?}");
    consumer.end(vec![delivery], &Disposition::Ack).await
}
