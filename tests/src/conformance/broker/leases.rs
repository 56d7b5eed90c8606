//! What becomes of deliveries whose consumer died, and of those whose consumer lives.

use super::*;
use rwork_broker::Error;

/// Short, so that its end is soon seen.
const SHORT: Duration = Duration::from_millis(100);
/// Short, and long enough for a renewal to come in time on a busy machine.
const RENEWABLE: Duration = Duration::from_millis(1500);

/// Receives, and lives meanwhile.
async fn receive_alive(
    consumer: &dyn Consumer,
    count: usize,
    lease: Option<Duration>,
) -> Result<Vec<Delivery>> {
    let mut beat = tokio::time::interval(lease.unwrap_or(LONG) / 5);
    let mut came = Vec::new();
    while came.len() < count {
        tokio::select! {
            batch = consumer.receive(count - came.len()) => came.extend(batch?),
            _ = beat.tick() => consumer.renew().await?,
        }
    }
    Ok(came)
}

pub(super) async fn a_dead_consumers_messages_come_back(site: &Site<'_>) -> Result<()> {
    let queue = queue("celery")?;
    let doomed = site.leased("lease-dead", SHORT).await?;
    doomed.publish(numbered(&queue, 0..5)).await?;
    let held = {
        let consumer = consumer(&doomed, &[&queue]).await?;
        receive(&*consumer, 3).await?
    };
    drop(doomed);
    let broker = site.leased("lease-dead", SHORT).await?;
    let consumer = consumer(&broker, &[&queue]).await?;
    let mut came = receive_alive(&*consumer, 5, broker.capabilities().lease).await?;
    came.sort_by_key(|delivery| delivery.message.properties.correlation_id.clone());
    ensure!(numbers(&came) == [0, 1, 2, 3, 4], "got {:?}", numbers(&came));
    for (number, delivery) in came.iter().enumerate() {
        ensure!(delivery.redelivered == (number < held.len()), "`redelivered` of {number}");
        if broker.capabilities().counts_deliveries {
            let count = if number < held.len() { 2 } else { 1 };
            ensure!(delivery.delivery_count == count, "expected {count}, got {}", delivery.delivery_count);
        }
    }
    settle(&*consumer, came, &Disposition::Ack).await
}

pub(super) async fn renewed_leases_last(site: &Site<'_>) -> Result<()> {
    let queue = queue("celery")?;
    let place = "lease-renewed";
    let (alive, other) = (site.leased(place, RENEWABLE).await?, site.leased(place, RENEWABLE).await?);
    let doomed = site.leased(place, RENEWABLE).await?;
    let Some(lease) = alive.capabilities().lease else { return Ok(()) };
    other.publish(numbered(&queue, 0..2)).await?;
    let renewing = consumer(&alive, &[&queue]).await?;
    let kept = receive(&*renewing, 1).await?;
    let silent = consumer(&doomed, &[&queue]).await?;
    drop((receive(&*silent, 1).await?, silent, doomed));
    // Message 1 comes back when a whole lease has passed without renewal; message 0 must not.
    let watching = consumer(&other, &[&queue]).await?;
    let mut beat = tokio::time::interval(lease / 5);
    let came = loop {
        tokio::select! {
            batch = watching.receive(2) => break batch?,
            _ = beat.tick() => {
                renewing.renew().await?;
                watching.renew().await?;
            }
        }
    };
    ensure!(numbers(&came) == [1], "got {:?}", numbers(&came));
    ensure!(numbers(&kept) == [0]);
    settle(&*renewing, kept, &Disposition::Ack).await
}

pub(super) async fn a_lost_lease_is_told(site: &Site<'_>) -> Result<()> {
    let queue = queue("celery")?;
    let (late, other) = (site.leased("lease-lost", SHORT).await?, site.leased("lease-lost", SHORT).await?);
    if late.capabilities().lease.is_none() {
        return Ok(());
    }
    other.publish(numbered(&queue, 0..1)).await?;
    let sleeping = consumer(&late, &[&queue]).await?;
    let lost = receive(&*sleeping, 1).await?;
    let quick = consumer(&other, &[&queue]).await?;
    let came = receive_alive(&*quick, 1, other.capabilities().lease).await?;
    ensure!(numbers(&came) == [0]);
    let renewed = sleeping.renew().await;
    ensure!(matches!(renewed, Err(Error::LeaseLost { .. })), "expected `LeaseLost`, got {renewed:?}");
    let received = sleeping.receive(1).await;
    ensure!(received.is_err(), "a consumer without a lease received {received:?}");
    let late = lost.into_iter().map(|delivery| delivery.settle(Disposition::Ack)).collect();
    if let Ok(settled) = sleeping.settle(late).await {
        ensure!(settled == [Settled::Lost], "settled what another holds: {settled:?}");
    }
    Ok(())
}
