//! A consumer is an identity, not a connection.

use std::time::Duration;

use super::*;
use crate::proxy::Proxy;

pub(super) async fn a_consumer_outlives_its_line(site: &Site<'_>) -> Result<()> {
    let broker = site.connect("resumed").await?;
    let queue = queue("celery")?;
    broker.publish_all(numbered(&queue, 0..3)).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    let held = consumer.receive(2).await?;
    let receipts: Vec<Receipt> = held.iter().map(|delivery| delivery.receipt).collect();
    for _ in 0..2 {
        let resumed = consumer.resume().await;
        let Resumed::Stands { fresh, gone } = resumed else {
            anyhow::bail!("it does not stand: {resumed:?}")
        };
        if broker.capabilities().ownership == Ownership::Connection {
            // The server has taken back what was held, or the connection was well and nothing had to be done.
            ensure!(fresh.is_empty() && gone.iter().all(|receipt| receipts.contains(receipt)));
            if !gone.is_empty() {
                return Ok(());
            }
            continue;
        }
        // Those that the driver had taken ahead are its own: they were never handed to us and are not lost.
        ensure!(gone.is_empty(), "{gone:?} were lost with the line");
        ensure!(fresh.iter().all(|delivery| !receipts.contains(&delivery.receipt)), "handed out twice");
        ensure!(fresh.is_empty(), "nothing was taken whose answer was lost: {fresh:?}");
    }
    consumer.end(held, &Disposition::Ack).await?;
    let came = consumer.receive(1).await?;
    ensure!(numbers(&came) == [2], "got {:?}", numbers(&came));
    consumer.end(came, &Disposition::Ack).await?;
    nothing_but_a_marker(&broker, &consumer, &queue).await
}

pub(super) async fn a_server_out_of_reach_kills_nobody(site: &Site<'_>) -> Result<()> {
    const LEASE: Duration = Duration::from_millis(400);
    let Some(server) = site.ground.server() else { return Ok(()) };
    let proxy = Proxy::before(server)?;
    let name = "out-of-reach";
    let near = site.ground.connect(Place { lease: LEASE, ..Place::new(name) }).await?;
    let Some(lease) = near.capabilities().ownership.lease() else { return Ok(()) };
    let far = Place { lease: LEASE, port: Some(proxy.port()), ..Place::new(name) };
    let queue = queue("celery")?;
    near.publish_all(numbered(&queue, 0..2)).await?;
    let (first, second) = (site.ground.connect(far.clone()).await?, site.ground.connect(far).await?);
    let first = Consuming::start(&first, &[&queue]).await?;
    let mine = first.receive(1).await?;
    let second = Consuming::start(&second, &[&queue]).await?;
    let others = second.receive(1).await?;
    let _alive = (first.live(), second.live());
    // Nobody is answered for two leases, and nobody is told why: a paused server, or a switch that is off.
    proxy.freeze();
    tokio::time::sleep(lease * 2).await;
    proxy.thaw();
    for (consumer, held) in [(first, mine), (second, others)] {
        let resumed = consumer.resume().await;
        let nothing = Resumed::Stands { fresh: Vec::new(), gone: Vec::new() };
        ensure!(resumed == nothing, "it lost what it held: {resumed:?}");
        ensure!(held.iter().all(|delivery| !delivery.redelivered));
        consumer.end(held, &Disposition::Ack).await?;
    }
    Ok(())
}

pub(super) async fn a_store_that_lost_all_says_so(site: &Site<'_>) -> Result<()> {
    let place = Place { lease: lives::SHORT, ..Place::new("lost-all") };
    let queue = queue("celery")?;
    let broker = site.ground.connect(place.clone()).await?;
    let consumer = Consuming::start(&broker, &[&queue]).await?;
    broker.publish_all(numbered(&queue, 0..1)).await?;
    let held = consumer.receive_one().await?;
    if !site.ground.lose_all(place.clone()).await? {
        return Ok(());
    }
    let mut beat = tokio::time::interval(lives::SHORT / 5);
    while let Ok(true) = consumer.consumer.renew().await {
        beat.tick().await;
    }
    let resumed = consumer.resume().await;
    ensure!(resumed == Resumed::Forgotten, "expected `Forgotten`, got {resumed:?}");
    drop(held);
    // Nobody else has the message: what its run causes is committed without a fence, by a new consumer.
    let anew = Consuming::start(&broker, &[&queue]).await?;
    anew.done(vec![commit(Ending::Unfenced, numbered(&queue, 10..11))]).await?;
    let came = anew.receive(1).await?;
    ensure!(numbers(&came) == [10], "got {:?}", numbers(&came));
    anew.end(came, &Disposition::Ack).await
}
