//! One consumer from connect to loss: what it handed over is ours exactly as long as the session lives.
//!
//! Owns the consumer, the lease and the reconnecting. Never decides how a delivery ends.

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Consume, Consumer, Delivery, Error, Settled, Settlement};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::outage::{Backoff, Outage, chain};
use crate::shared::Shared;

/// Renewals per lease: two may fail before a third decides.
const RENEWALS_PER_LEASE: u32 = 3;

/// The session ended: nothing that it handed over is ours any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

#[derive(Debug)]
pub(crate) struct Session {
    consumer: Box<dyn Consumer>,
    node: String,
    /// From when the first lease counts: before it was asked for, since later would be too kind to ourselves.
    began: Instant,
    lost: CancellationToken,
}

impl Session {
    /// Waits for messages. Failures that leave the connection whole are waited out.
    ///
    /// # Cancel safety
    /// As [`Consumer::receive`].
    pub(crate) async fn receive(&self, max: usize, mut outage: Outage) -> Result<Vec<Delivery>, Lost> {
        loop {
            match self.consumer.receive(max).await {
                Ok(deliveries) => {
                    outage.over();
                    return Ok(deliveries);
                }
                Err(error) if leaves_whole(&error) => sleep(outage.failed(&error)).await,
                Err(error) => return Err(self.lose(&error)),
            }
        }
    }

    /// Settles, trying again while the session lives. The order of the answers is the batch's.
    pub(crate) async fn settle(
        &self,
        batch: Vec<Settlement>,
        outage: &mut Outage,
    ) -> Result<Vec<Settled>, Lost> {
        while !self.is_lost() {
            match self.consumer.settle(batch.clone()).await {
                Ok(settled) => {
                    outage.over();
                    return Ok(settled);
                }
                Err(error) if is_passing(&error) => sleep(outage.failed(&error)).await,
                Err(error) => return Err(self.lose(&error)),
            }
        }
        Err(Lost)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Resolves when the session is lost. Cancel safe.
    pub(crate) async fn wait_lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whatever is held goes back uncounted. Failures that leave the connection whole are waited out.
    pub(crate) async fn close(&self, mut outage: Outage) {
        while let Err(error) = self.consumer.close().await {
            if !is_passing(&error) {
                tracing::warn!(error = %chain(&error), "failed to close the consumer: its lease runs out by itself");
                return;
            }
            sleep(outage.failed(&error)).await;
        }
    }

    /// The first to notice says so.
    fn lose(&self, error: &Error) -> Lost {
        if !self.lost.is_cancelled() {
            tracing::warn!(node = %self.node, error = %chain(error), "lost the broker: what was held will be redelivered");
            self.lost.cancel();
        }
        Lost
    }
}

/// Whether the connection is whole, whatever could not be done: one queue that can't be read must not end the tasks of the
/// others.
fn leaves_whole(error: &Error) -> bool {
    matches!(error, Error::Full { .. } | Error::Act { .. })
}

/// Whether the same consumer can be used on, and the same may succeed.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Full { .. } | Error::Act { retryable: true, .. })
}

/// How often a connection without a lease is looked at: who is full of messages would not notice its end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at a session without a lease: what it holds stays ours as long as its connection lives.
pub(crate) async fn watch(session: Arc<Session>, mut outage: Outage) {
    while !session.is_lost() {
        sleep(LOOK_EVERY).await;
        match session.consumer.renew().await {
            Ok(()) => outage.over(),
            Err(error) if leaves_whole(&error) => sleep(outage.failed(&error)).await,
            Err(error) => drop(session.lose(&error)),
        }
    }
}

/// Renews the lease until the session is lost. On a task of its own, so that nothing else can be in its way.
pub(crate) async fn keep(session: Arc<Session>, lease: Duration, mut outage: Outage) {
    let renew_every = lease / RENEWALS_PER_LEASE;
    let mut ours_until = session.began + lease;
    let mut next = session.began + renew_every;
    loop {
        sleep_until(next.min(ours_until)).await;
        // Again from before the question.
        let asked = Instant::now();
        match timeout_at(ours_until, session.consumer.renew()).await {
            Ok(Ok(())) => {
                outage.over();
                ours_until = asked + lease;
                next = asked + renew_every;
            }
            Ok(Err(error)) if leaves_whole(&error) => next = Instant::now() + outage.failed(&error),
            Ok(Err(error)) => {
                session.lose(&error);
                return;
            }
            Err(_) => next = ours_until,
        }
        if Instant::now() >= ours_until {
            session.lose(&Error::LeaseLost { name: session.node.clone() });
            return;
        }
    }
}

/// Makes sessions: the first at once, each later one after a pause, until one is made.
#[derive(Debug)]
pub(crate) struct Connector {
    outage: Outage,
    backoff: Backoff,
    options: Consume,
    made: bool,
}

impl Connector {
    pub(crate) fn new(shared: &Shared) -> Self {
        let config = &shared.config;
        Self {
            outage: Outage::of_broker("consume", shared.backoff()),
            backoff: shared.backoff(),
            options: Consume {
                queues: config.queues.clone(),
                name: config.node.clone(),
                unsettled_max: config.unsettled_max(),
            },
            made: false,
        }
    }

    /// A new session.
    ///
    /// # Errors
    /// Only before the first session, and only when waiting mends nothing (wrong password, wrong URL) or is not wanted.
    pub(crate) async fn connect(mut self, shared: Arc<Shared>) -> Result<(Self, Arc<Session>), Error> {
        if self.made {
            sleep(self.backoff.pause()).await;
        }
        loop {
            let began = Instant::now();
            let patient = |error: &Error| error.is_retryable() && shared.config.retry_on_startup;
            match shared.broker.consume(self.options.clone()).await {
                Ok(consumer) => {
                    self.outage.over();
                    self.made = true;
                    let (node, lost) = (self.options.name.clone(), CancellationToken::new());
                    return Ok((self, Arc::new(Session { consumer, node, began, lost })));
                }
                Err(error) if !self.made && !patient(&error) => {
                    return Err(error);
                }
                Err(error) => sleep(self.outage.failed(&error)).await,
            }
        }
    }

    /// A session was lost, which was said when it was noticed. One that lived so long was a good one: the next begins after
    /// a short pause again.
    pub(crate) fn lost(&mut self, since: Instant, longest: Duration) {
        self.outage.begins();
        if since.elapsed() > longest {
            self.backoff.reset();
        }
    }
}
