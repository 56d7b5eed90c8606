//! Every request of a consumer's life is cut once in each way: before it, within it, before and within its answer, and
//! delivered late. Nothing may be lost, doubled, marked or counted by that.

use anyhow::Context as _;
use rwork_broker::Error;

use super::*;
use crate::proxy::{Cut, Fault, Met, Proxy};

/// More requests than one life makes; a life that makes so many never ends.
const REQUESTS_MAX: usize = 200;

pub(super) async fn any_cut_loses_and_doubles_nothing(site: &Site<'_>) -> Result<()> {
    let Some(server) = site.ground.server() else { return Ok(()) };
    let proxy = Proxy::before(server)?;
    let near = site.connect("cuts").await?;
    // A connection that is lost takes what it held with it there.
    if near.capabilities().ownership == Ownership::Connection {
        return Ok(());
    }
    let far = Place { port: Some(proxy.port()), ..Place::new("cuts") };
    for cut in Cut::ALL {
        let mut passed = 0;
        while life(site, &near, &far, &proxy, Fault::at_any(cut).after(passed))
            .await
            .with_context(|| format!("{cut:?} at request {passed}"))?
        {
            passed += 1;
            ensure!(passed < REQUESTS_MAX, "there is no end of requests");
        }
        ensure!(passed > 0, "no request was met");
    }
    Ok(())
}

/// A consumer's life with one fault in it. False: it ended before the fault was met.
async fn life(
    site: &Site<'_>,
    near: &Arc<dyn Broker>,
    far: &Place,
    proxy: &Proxy,
    fault: Fault,
) -> Result<bool> {
    let queue = queue("celery")?;
    near.publish_all(numbered(&queue, 0..4)).await?;
    let broker = site.ground.connect(far.clone()).await?;
    let consuming = Consuming::start(&broker, &[&queue]).await?;
    let life = Life { consuming, met: proxy.on(fault) };
    let came = life.take(4).await?;
    ensure!(sorted(&came) == [0, 1, 2, 3], "took {:?}", numbers(&came));
    let [acked, held, released, requeued] =
        by_number(came).try_into().map_err(|_| anyhow::anyhow!("not four"))?;
    life.commit(vec![
        commit(Ending::Settle(acked.settle(Disposition::Ack)), numbered(&queue, 10..11)),
        commit(Ending::Holds(held.receipt), numbered(&queue, 11..12)),
        end(released, Disposition::Release),
        end(requeued, Disposition::Requeue),
    ])
    .await?;
    let came = by_number(life.take(4).await?);
    ensure!(numbers(&came) == [2, 3, 10, 11], "took {:?}", numbers(&came));
    let marks: Vec<_> = came.iter().map(|delivery| (delivery.redelivered, delivery.delivery_count)).collect();
    ensure!(marks == [(false, 1), (true, 2), (false, 1), (false, 1)], "marked and counted as {marks:?}");
    let all = came.into_iter().chain([held]);
    life.commit(all.map(|delivery| end(delivery, Disposition::Ack)).collect()).await?;
    life.close().await;
    let after = Consuming::start(near, &[&queue]).await?;
    nothing_but_a_marker(near, &after, &queue).await?;
    after.close().await?;
    Ok(life.met.has_happened())
}

fn by_number(mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    deliveries.sort_by_key(|delivery| numbers(std::slice::from_ref(delivery)));
    deliveries
}

struct Life {
    consuming: Consuming,
    met: Met,
}

impl Life {
    /// Receives until there are so many, through whatever happens.
    async fn take(&self, count: usize) -> Result<Vec<Delivery>> {
        let mut came = Vec::new();
        while came.len() < count {
            match self.consuming.consumer.receive(room(count - came.len())).await {
                Ok(batch) => came.extend(batch),
                Err(error) => came.extend(self.recover(error, &[]).await?),
            }
        }
        Ok(came)
    }

    /// Commits until there is an answer.
    async fn commit(&self, commits: Vec<Commit>) -> Result<()> {
        let batch = self.consuming.batch(commits);
        let receipts: Vec<Receipt> =
            batch.commits.iter().filter_map(|commit| commit.ending.receipt()).collect();
        loop {
            match self.consuming.consumer.commit(&batch).await {
                Ok(answers) => {
                    ensure!(answers.iter().all(|answer| *answer == Committed::Done), "got {answers:?}");
                    return Ok(());
                }
                Err(error) => {
                    let fresh = self.recover(error, &receipts).await?;
                    ensure!(fresh.is_empty(), "a commit took {fresh:?}");
                }
            }
        }
    }

    /// Closes; a consumer whose close was never heard of is found by others, and has nothing left here.
    async fn close(&self) {
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            if self.consuming.close().await.is_ok() {
                return;
            }
        }
    }

    /// Asks what stands after an error, lets the late request come then, and returns deliveries whose taking was not
    /// answered. Those whose end was not answered may be gone.
    async fn recover(&self, error: Error, unanswered: &[Receipt]) -> Result<Vec<Delivery>> {
        let is_lost = matches!(error, Error::Unreachable { .. } | Error::LeaseLost { .. });
        ensure!(is_lost || error.is_retryable(), "a lost line was told as {error:?}");
        let resumed = self.consuming.resume().await;
        let Resumed::Stands { fresh, gone } = resumed else {
            anyhow::bail!("it does not stand: {resumed:?}")
        };
        ensure!(gone.iter().all(|receipt| unanswered.contains(receipt)), "{gone:?} were lost with the line");
        // Nobody waits for it: its answer says no more than that it is stale.
        let _ = self.met.deliver();
        Ok(fresh)
    }
}
