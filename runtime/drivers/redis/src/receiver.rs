//! Receiving: takes, looks, and the waiting between.
//!
//! A take asks the queues that may have something. A queue that has nothing is looked at once, by which the server watches
//! its keys and tells when one changes; then it is asked again, at once. Once a second all are looked at, told or not.
//!
//! A call to the server that was begun is kept when its caller goes away: the next one gets what came of it.

mod outlook;
mod take;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::Value;
use rwork_broker::{Delivery, Error, Receipt, Room};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::broker::locked;
use crate::commit::bury;
use crate::consumer::{Shared, UnderWay};
use crate::line::Line;
use crate::reply;
use outlook::Outlook;
use rwork_protocol::envelope::Malformed;
use take::{Took, Wanted, take};

/// How long the server's silence is trusted. Asking shows that the connection lives, too.
const TICK: Duration = Duration::from_secs(1);
/// How often to ask a server that does not tell.
const POLL: Duration = Duration::from_millis(100);
/// Bytes of one take: more would hold up the server and everybody else.
const TAKE_BYTES_MAX: usize = 16 << 20;
/// Queues looked at by one command, together: some hundred keys.
const LOOK_QUEUES: usize = 16;

/// One consumer's receiving.
pub(crate) struct Receiver {
    outlook: Outlook,
    /// Came, and not handed out yet.
    deliveries: VecDeque<Delivery>,
    /// Came, and is no message.
    malformed: Vec<(Receipt, Malformed)>,
    call: Option<Call>,
    /// Line that the outlook is of.
    line: u64,
    /// The last look at all queues.
    looked: Instant,
    /// A take came since the last look, and left room.
    has_room: bool,
}

/// A call under way.
struct Call {
    came: BoxFuture<'static, Result<Came, Error>>,
    _under_way: UnderWay,
}

enum Came {
    Took(Wanted, Took),
    /// For each group of queues whether there is something.
    Looked(Vec<Vec<usize>>, Vec<bool>),
    Buried,
}

impl Receiver {
    pub(crate) fn new(shared: &Shared) -> Self {
        let strategy = shared.inner.options.transport.queue_order_strategy;
        Self {
            outlook: Outlook::new(&shared.sources, strategy),
            deliveries: VecDeque::new(),
            malformed: Vec::new(),
            call: None,
            line: 0,
            looked: Instant::now(),
            has_room: false,
        }
    }

    /// Waits until something can be handed out.
    ///
    /// # Cancel safety
    /// Cancel safe: a call goes on with the next caller.
    pub(crate) async fn receive(&mut self, shared: &Arc<Shared>, room: Room) -> Result<Vec<Delivery>, Error> {
        loop {
            shared.check()?;
            let (number, line) = shared.line();
            if number != self.line {
                // What an earlier line took is known from resuming.
                self.call = None;
                self.outlook.forget();
                self.line = number;
            }
            let ready = self.ready(shared, room);
            if !ready.is_empty() {
                return Ok(ready);
            }
            if line.wire.is_broken() {
                return Err(line.lost("take messages"));
            }
            self.step(shared, &line, room).await?;
        }
    }

    /// What can be handed out now.
    fn ready(&mut self, shared: &Shared, room: Room) -> Vec<Delivery> {
        let (mut ready, mut bytes) = (Vec::new(), 0);
        let mut deliveries = locked(&shared.deliveries);
        while ready.len() < room.messages && bytes < room.bytes.max(1) {
            let Some(delivery) = self.deliveries.pop_front() else { break };
            // One that was lost meanwhile is not ours to give.
            if deliveries.hand_over(delivery.receipt) {
                bytes += delivery.message.size();
                ready.push(delivery);
            }
        }
        ready
    }

    /// One step towards more.
    async fn step(&mut self, shared: &Arc<Shared>, line: &Arc<Line>, room: Room) -> Result<(), Error> {
        if self.call.is_some() {
            return self.finish(shared).await;
        }
        if !self.malformed.is_empty() {
            self.call = Some(Call::new(shared, bury_all(Arc::clone(shared), self.malformed.clone())));
            return Ok(());
        }
        let now = Instant::now();
        self.outlook.told(&line.news.changed());
        let due = self.outlook.next_due(now);
        if now >= self.looked + interval(shared, line) {
            self.looked = now;
            // Full takes must not put looks off for ever.
            self.has_room |= self.outlook.doubt();
        }
        let (ready, unknown) = (self.outlook.ready(), self.outlook.unknown());
        if !unknown.is_empty() && (ready.is_empty() || self.has_room) {
            self.has_room = false;
            self.call = Some(Call::new(shared, look(Arc::clone(shared), Arc::clone(line), unknown)));
        } else if !ready.is_empty() {
            self.begin_take(shared, line, ready, room).await;
        } else {
            let until = self.looked + interval(shared, line);
            rest(shared, line, due.map_or(until, |due| due.min(until))).await;
        }
        Ok(())
    }

    async fn begin_take(&mut self, shared: &Arc<Shared>, line: &Arc<Line>, queues: Vec<usize>, room: Room) {
        let free = shared.unsettled_max.saturating_sub(locked(&shared.deliveries).len());
        if free == 0 {
            tokio::select! {
                () = shared.room.notified() => {}
                () = line.news.bell.notified() => {}
                () = shared.closing.cancelled() => {}
            }
            return;
        }
        let wanted = Wanted {
            queues,
            is_fair: self.outlook.is_fair,
            messages: room.messages.clamp(1, free),
            bytes: room.bytes.clamp(1, TAKE_BYTES_MAX),
        };
        self.call = Some(Call::new(shared, take_from(Arc::clone(shared), Arc::clone(line), wanted)));
    }

    /// Waits for what is under way when the consumer ends, so that nothing is held that nobody knows of.
    pub(crate) async fn close(&mut self, shared: &Shared) {
        if self.call.is_some()
            && let Err(error) = self.finish(shared).await
        {
            tracing::debug!(%error, "a take failed while the consumer was closed");
        }
        self.deliveries.clear();
        self.malformed.clear();
    }

    async fn finish(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some(call) = &mut self.call else { return Ok(()) };
        let came = (&mut call.came).await;
        // Accepted before the call is over: a renewal compares numbers when nothing is under way.
        let accepted = came.map(|came| self.accept(shared, came));
        self.call = None;
        // A call of an earlier line has nothing to say.
        if shared.line().0 == self.line { accepted } else { Ok(()) }
    }

    fn accept(&mut self, shared: &Shared, came: Came) {
        match came {
            Came::Took(wanted, took) => self.accept_taken(shared, &wanted, took),
            Came::Looked(groups, found) => {
                for (queues, is_there_something) in groups.iter().zip(found) {
                    self.outlook.looked(queues, is_there_something);
                }
            }
            Came::Buried => self.malformed.clear(),
        }
    }

    fn accept_taken(&mut self, shared: &Shared, wanted: &Wanted, took: Took) {
        let served: BTreeSet<usize> = took.messages.iter().map(|taken| taken.queue).collect();
        self.has_room = !took.left.is_empty();
        self.outlook.took(&wanted.queues, &served, &took.left, Instant::now());
        let mut deliveries = locked(&shared.deliveries);
        if deliveries.line != self.line {
            // Resuming has told of them.
            return;
        }
        for taken in took.messages {
            match deliveries.accept(taken, &shared.sources) {
                Ok(delivery) => self.deliveries.extend(delivery),
                Err(malformed) => self.malformed.push(malformed),
            }
        }
    }
}

impl Call {
    fn new(shared: &Arc<Shared>, came: impl Future<Output = Result<Came, Error>> + Send + 'static) -> Self {
        Self { came: came.boxed(), _under_way: shared.under_way() }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("outlook", &self.outlook).finish_non_exhaustive()
    }
}

async fn bury_all(shared: Arc<Shared>, malformed: Vec<(Receipt, Malformed)>) -> Result<Came, Error> {
    bury(&shared, &malformed).await.map(|()| Came::Buried)
}

async fn take_from(shared: Arc<Shared>, line: Arc<Line>, wanted: Wanted) -> Result<Came, Error> {
    let token = shared.token();
    let took = take(&shared, &line, &token, &wanted).await?;
    took.map(|took| Came::Took(wanted, took)).ok_or_else(|| shared.lease_lost())
}

/// Looks whether there is something in each group of queues. The server watches what it reads for us.
async fn look(shared: Arc<Shared>, line: Arc<Line>, queues: Vec<usize>) -> Result<Came, Error> {
    const ACT: &str = "look for messages";
    // What was taken just now goes first.
    yield_now().await;
    let groups: Vec<Vec<usize>> = queues.chunks(LOOK_QUEUES).map(<[usize]>::to_vec).collect();
    let mut pipe = redis::pipe();
    for group in &groups {
        if line.is_told {
            pipe.cmd("CLIENT").arg("CACHING").arg("YES").ignore();
        }
        let sources = group.iter().filter_map(|queue| shared.sources.queues.get(*queue));
        pipe.cmd("EXISTS").arg(sources.flat_map(|source| source.told_by()).collect::<Vec<_>>());
    }
    let counts = shared.inner.commands.pipeline_on(&line.wire, ACT, &pipe).await?;
    let found: Vec<bool> = counts
        .iter()
        .filter(|count| matches!(count, Value::Int(_)))
        .map(|count| *count != Value::Int(0))
        .collect();
    match found.len() == groups.len() {
        true => Ok(Came::Looked(groups, found)),
        false => Err(reply::odd(&line.wire.url, ACT, "a number for each")),
    }
}

async fn rest(shared: &Shared, line: &Line, until: Instant) {
    tokio::select! {
        () = line.news.bell.notified() => {}
        () = sleep_until(until) => {}
        () = shared.closing.cancelled() => {}
    }
}

fn interval(shared: &Shared, line: &Line) -> Duration {
    if line.is_told {
        return TICK;
    }
    shared.inner.options.transport.polling_interval.unwrap_or(POLL).max(Duration::from_millis(1))
}
