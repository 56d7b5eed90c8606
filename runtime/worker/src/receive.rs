//! Receive: one group of queues, from the broker to what intake can decide on.
//!
//! A task of its own that makes the group's consumer, takes as much as it is asked to, decodes, and resumes the consumer
//! when its line was lost. It ends a consumer only by the store's word, and goes on with a new one then.

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Consume, Delivery, Error, Ownership, Receipt, Resumed, Room};
use rwork_protocol::QueueName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::group::GroupId;
use crate::intake::{Arrived, Source};
use crate::keeper::{self, keep};
use crate::look;
use crate::outage::{Backoff, Outage, chain};
use crate::session::{Over, Session};
use crate::shared::Shared;

/// Time that a taking in progress has after the worker was told to stop: what the server has given already is handed
/// back by name then, not by its death.
const LAST_TAKING: Duration = Duration::from_millis(100);

/// News from a receiver to the pipe.
pub(crate) enum News {
    /// The receiver consumes.
    Ready,
    /// Deliveries, as many as were asked for at most.
    Arrived(Source, Vec<Arrived>),
    /// The line was lost and made again: deliveries that are not ours any more, and some that nobody was told of.
    Resumed(Source, Vec<Receipt>, Vec<Arrived>),
    /// The consumer ended.
    Over(Source, Over),
    /// The broker refuses us in a way that waiting does not mend; only before the first consumer.
    Refused(Error),
    /// The receiver takes nothing any more, as it was told.
    Stopped,
}

/// One group's receiving.
pub(crate) struct Receiver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: GroupId,
    pub(crate) queues: Vec<QueueName>,
    pub(crate) commits: mpsc::WeakSender<crate::commit::TaskCommit>,
    /// The consumer that stands, for whoever commits.
    pub(crate) current: watch::Sender<Option<Arc<Session>>>,
    /// Rooms to fill. One is answered before the next is asked.
    pub(crate) asks: mpsc::Receiver<Room>,
    pub(crate) news: mpsc::Sender<(GroupId, News)>,
    pub(crate) stop: CancellationToken,
}

impl Receiver {
    /// Receives until nobody listens.
    pub(crate) async fn run(mut self) {
        let mut connector = Connector::new(&self.shared, self.queues.clone());
        let mut stopped = false;
        // What was asked of one consumer is asked of the next.
        let mut room = None;
        loop {
            let session = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopped => {
                    stopped = true;
                    if self.tell(News::Stopped).await.is_none() { return }
                    continue;
                }
                session = connector.connect(&self.shared) => session,
            };
            let session = match session {
                Ok(session) => session,
                Err(error) => {
                    self.tell(News::Refused(error)).await;
                    return;
                }
            };
            let source = Source { session, commits: self.commits.clone() };
            self.current.send_replace(Some(Arc::clone(&source.session)));
            let since = Instant::now();
            let Some(over) = self.serve(&source, &mut stopped, &mut room).await else { return };
            self.current.send_replace(None);
            connector.ended(since.elapsed());
            if self.tell(News::Over(source, over)).await.is_none() {
                return;
            }
        }
    }

    /// Serves one consumer to its end; `None`: nobody listens.
    async fn serve(&mut self, source: &Source, stopped: &mut bool, room: &mut Option<Room>) -> Option<Over> {
        let mut keeper = JoinSet::new();
        let lease = self.shared.broker.capabilities().ownership.lease();
        if self.shared.renews() {
            let kept = keep(Arc::clone(&source.session), lease);
            match &self.shared.renewals {
                Some(thread) => drop(keeper.spawn_on(kept, thread)),
                None => drop(keeper.spawn(kept)),
            }
            let (session, outage) = (Arc::clone(&source.session), self.outage_of("renew"));
            keeper.spawn(async move { session.tell_of_silence(outage).await });
        }
        self.tell(News::Ready).await?;
        loop {
            if *stopped {
                source.session.until_troubled().await;
                match self.mend(source, Vec::new()).await? {
                    Some(over) => return Some(over),
                    None => continue,
                }
            }
            tokio::select! {
                biased;
                () = source.session.until_troubled() => {
                    if let Some(over) = self.mend(source, Vec::new()).await? {
                        return Some(over);
                    }
                }
                () = self.stop.cancelled() => {
                    self.take_the_last(source, *room).await?;
                    *stopped = true;
                }
                taken = take(&self.shared, source, &mut self.asks, room) => {
                    let arrived = look::into(&self.shared, taken?).await;
                    if let Some(over) = self.tell_of_arrivals(source, arrived).await? {
                        return Some(over);
                    }
                }
            }
        }
    }

    fn outage_of(&self, act: &'static str) -> Outage {
        Outage::of_broker(act, self.shared.backoff())
    }

    /// Takes what the server has given already: it comes within a moment.
    async fn take_the_last(&mut self, source: &Source, room: Option<Room>) -> Option<()> {
        if let Some(room) = room {
            let outage = self.outage_of("receive messages");
            let last = tokio::time::timeout(LAST_TAKING, source.session.receive(room, outage)).await;
            if let Ok(Some(deliveries)) = last {
                let mut arrived = look::into(&self.shared, deliveries).await;
                // Nothing of it is started any more: it goes back, by its name.
                let _ = look::recall(&self.shared, source, &mut arrived).await;
                self.tell(News::Arrived(source.clone(), arrived)).await?;
            }
        }
        self.tell(News::Stopped).await
    }

    /// Tells of what was taken, once it is known what of it has succeeded before. A line that is lost meanwhile is mended
    /// first.
    async fn tell_of_arrivals(&self, source: &Source, mut arrived: Vec<Arrived>) -> Option<Option<Over>> {
        if look::recall(&self.shared, source, &mut arrived).await.is_ok() {
            self.tell(News::Arrived(source.clone(), arrived)).await?;
            return Some(None);
        }
        // What was asked for is answered; what came is told of when the line is whole.
        self.tell(News::Arrived(source.clone(), Vec::new())).await?;
        self.mend(source, arrived).await
    }

    /// Resumes a consumer, for as long as that takes. `untold`: what was taken and the pipe does not know of.
    async fn mend(&self, source: &Source, mut untold: Vec<Arrived>) -> Option<Option<Over>> {
        let mut all_gone = Vec::new();
        let mut outage = self.outage_of("consume");
        let ownership = self.shared.broker.capabilities().ownership;
        if let Some(error) = source.session.take_trouble() {
            self.tell_of(&error, ownership);
            outage.begins();
        }
        // Held messages are ours by being renewed: long pauses would make the renewals late.
        let lease = ownership.lease();
        let pause_max = lease.map_or(Duration::MAX, |lease| keeper::interval(Some(lease)));
        loop {
            match source.session.resume().await {
                Ok(Resumed::Stands { fresh, gone }) => {
                    outage.over();
                    untold.retain(|arrived| !gone.contains(&arrived.delivery.receipt));
                    untold.append(&mut look::into(&self.shared, fresh).await);
                    all_gone.extend(gone);
                    if look::recall(&self.shared, source, &mut untold).await.is_ok() {
                        self.tell(News::Resumed(source.clone(), all_gone, untold)).await?;
                        return Some(None);
                    }
                }
                Ok(Resumed::Dead) if ownership == Ownership::Connection => return Some(Some(Over::Dead)),
                Ok(Resumed::Dead) => {
                    tracing::warn!(node = %self.shared.config.node, "known as dead: what was held is run by others; consuming anew");
                    return Some(Some(Over::Dead));
                }
                Ok(Resumed::Forgotten) => {
                    tracing::warn!(node = %self.shared.config.node, "the broker has lost its data: what was taken is run to its end; consuming anew");
                    return Some(Some(Over::Forgotten));
                }
                Err(error) => sleep(outage.failed(&error).min(pause_max)).await,
            }
        }
    }

    fn tell_of(&self, error: &Error, ownership: Ownership) {
        let (node, error) = (&self.shared.config.node, chain(error));
        match ownership {
            Ownership::Connection => {
                tracing::warn!(node, error, "lost the broker: what was held will be redelivered");
            }
            Ownership::Lease(_) | Ownership::Process => {
                tracing::warn!(node, error, "lost the broker: what was taken stays with this worker");
            }
        }
    }

    async fn tell(&self, news: News) -> Option<()> {
        self.news.send((self.id, news)).await.ok()
    }
}

/// Takes what is asked for; a lost line is mended by whoever calls. `None`: nobody asks any more.
///
/// # Cancel safety
/// Cancel safe: the wish stays in `room` until something was taken, and what was taken stays with the consumer.
async fn take(
    shared: &Arc<Shared>,
    source: &Source,
    asks: &mut mpsc::Receiver<Room>,
    room: &mut Option<Room>,
) -> Option<Vec<Delivery>> {
    let wanted = match *room {
        Some(wanted) => wanted,
        None => *room.insert(asks.recv().await?),
    };
    let outage = Outage::of_broker("receive messages", shared.backoff());
    match source.session.receive(wanted, outage).await {
        Some(deliveries) => {
            *room = None;
            Some(deliveries)
        }
        // The trouble is seen by the caller before this is asked again.
        None => std::future::pending().await,
    }
}

/// Makes consumers: the first at once, each later one after a pause, until one is made.
#[derive(Debug)]
struct Connector {
    outage: Outage,
    backoff: Backoff,
    /// The longest pause.
    longest: Duration,
    options: Consume,
    made: bool,
}

impl Connector {
    fn new(shared: &Shared, queues: Vec<QueueName>) -> Self {
        let config = &shared.config;
        Self {
            outage: Outage::of_broker("consume", shared.backoff()),
            backoff: shared.backoff(),
            longest: config.backoff.longest,
            options: Consume { queues, name: config.node.clone(), unsettled_max: config.unsettled_max() },
            made: false,
        }
    }

    /// The last one lived so long. After a good one the next begins with a short pause again.
    fn ended(&mut self, lived: Duration) {
        self.outage.begins();
        if lived > self.longest {
            self.backoff.reset();
        }
    }

    /// A new consumer.
    ///
    /// # Errors
    /// Only before the first, and only when waiting mends nothing (wrong password, wrong URL) or is not wanted.
    async fn connect(&mut self, shared: &Arc<Shared>) -> Result<Arc<Session>, Error> {
        if self.made {
            sleep(self.backoff.pause()).await;
        }
        let ownership = shared.broker.capabilities().ownership;
        loop {
            let asked = shared.clock.boot();
            let is_patient = |error: &Error| error.is_retryable() && shared.config.retry_on_startup;
            match shared.broker.consume(self.options.clone()).await {
                Ok(consumer) => {
                    self.outage.over();
                    self.made = true;
                    let clock = Arc::clone(&shared.clock);
                    return Ok(Arc::new(Session::new(consumer, clock, ownership, asked)));
                }
                Err(error) if !self.made && !is_patient(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "failed to consume");
                    sleep(self.outage.failed(&error)).await;
                }
            }
        }
    }
}
