//! Taking: from the wish for messages to deliveries, and the waiting between.
//!
//! A call to the server that was begun is kept when whoever began it goes away: the next one gets what came of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rwork_broker::{Delivery, Error, Receipt};
use tokio::time::{Instant, sleep_until};

use super::calls::{Came, Rest, WAIT_MIN, Wish, bury, look_out, take, unblock, wait};
use super::{Held, Shared};
use crate::broker::locked;
use crate::envelope::{self, Malformed};
use crate::handle::Inner;
use crate::link::Wire;
use crate::options::QueueOrder;
use crate::take::{Element, Outlook};

/// How long a consumer trusts the server to tell it of messages. Asking shows that the connection lives.
const TICK: Duration = Duration::from_secs(1);
/// How often to ask a server that does not tell.
const POLL: Duration = Duration::from_millis(100);
/// How long a server that refused to let us wait is not asked again: its memory may be full.
const REFUSED: Duration = Duration::from_secs(10);

/// One consumer's taking.
pub(super) struct Pump {
    /// Places of queues, the first to be served first.
    order: Vec<usize>,
    fair: bool,
    /// Number of the next message: its receipt.
    number: u64,
    /// Came, and not handed out yet.
    deliveries: VecDeque<Delivery>,
    /// Came, and is no message.
    malformed: Vec<(u64, Malformed)>,
    call: Option<BoxFuture<'static, Result<Came, Error>>>,
    next: Next,
    /// The queue that was served last: the next message comes from there most likely.
    last: usize,
    /// The server refused to let us wait: it is not asked again until then.
    refused: Option<Instant>,
}

/// What to do when nothing is under way.
#[derive(Clone, Copy, Debug)]
enum Next {
    Take,
    /// The last take got less than it wanted: whether that was all is asked while what it got is run.
    Look,
    Rest(Rest),
}

impl Pump {
    pub(super) fn new(shared: &Shared) -> Self {
        let strategy = shared.inner.options.transport.queue_order_strategy;
        let mut order: Vec<usize> = (0..shared.sources.queues.len()).collect();
        if strategy == QueueOrder::Sorted {
            order.sort_by_key(|place| shared.sources.queues.get(*place).map(|source| source.name.clone()));
        }
        Self {
            order,
            fair: strategy == QueueOrder::RoundRobin,
            number: 0,
            deliveries: VecDeque::new(),
            malformed: Vec::new(),
            call: None,
            next: Next::Take,
            last: 0,
            refused: None,
        }
    }

    /// What can be handed out now.
    pub(super) fn ready(&mut self, shared: &Shared, max: usize) -> Vec<Delivery> {
        let count = self.deliveries.len().min(max);
        let ready: Vec<Delivery> = self.deliveries.drain(..count).collect();
        // A later copy of the same message took the place of an earlier one.
        let table = locked(&shared.table);
        let is_held = |delivery: &Delivery| match delivery.receipt {
            Receipt::Number(receipt) => table.get(receipt).is_some(),
            Receipt::Tag(_) => false,
        };
        ready.into_iter().filter(is_held).collect()
    }

    /// One step towards more.
    ///
    /// # Cancel safety
    /// Cancel safe: a call goes on with the next step.
    pub(super) async fn step(&mut self, shared: &Arc<Shared>, max: usize) -> Result<(), Error> {
        if self.call.is_some() {
            return self.finish_call(shared).await;
        }
        if !self.malformed.is_empty() {
            self.call = Some(bury(Arc::clone(shared), self.malformed.clone()).boxed());
            return Ok(());
        }
        match self.next {
            Next::Take => self.begin_take(shared, max).await,
            Next::Look => {
                // What the server told before this look says nothing about the time after it.
                let _ = shared.bell.notified().now_or_never();
                let is_refused = self.refused.is_some_and(|until| Instant::now() < until);
                let gate = (shared.may_wait && !is_refused).then_some(self.last);
                self.call = Some(look_out(Arc::clone(shared), gate).boxed());
            }
            Next::Rest(rest) => self.rest(shared, rest, max).await,
        }
        Ok(())
    }

    async fn begin_take(&mut self, shared: &Arc<Shared>, max: usize) {
        match self.wish(shared, max) {
            Some(wish) => self.call = Some(take(wish).boxed()),
            None => await_room(shared).await,
        }
    }

    async fn rest(&mut self, shared: &Arc<Shared>, rest: Rest, max: usize) {
        if rest.gate.is_some() {
            match self.wish(shared, max) {
                Some(wish) => self.call = Some(wait(wish, rest).boxed()),
                None => await_room(shared).await,
            }
            return;
        }
        tokio::select! {
            () = shared.bell.notified() => {}
            () = sleep_until(rest.until) => {}
            () = shared.closing.cancelled() => {}
        }
        self.next = Next::Take;
    }

    /// `None`: there is no room for more.
    fn wish(&self, shared: &Arc<Shared>, max: usize) -> Option<Wish> {
        let room = shared.unsettled_max.saturating_sub(locked(&shared.table).len());
        (room > 0).then(|| Wish {
            shared: Arc::clone(shared),
            order: self.order.clone(),
            fair: self.fair,
            first: self.number,
            max: max.min(room),
        })
    }

    /// Waits for what is under way, so that nothing is held that nobody knows of. What fails is left to the lease.
    pub(super) async fn finish(&mut self, shared: &Shared) {
        if self.call.is_some()
            && let Err(error) = self.finish_call(shared).await
        {
            tracing::debug!(%error, "a take failed while the consumer was closed");
        }
        self.deliveries.clear();
        self.malformed.clear();
    }

    async fn finish_call(&mut self, shared: &Shared) -> Result<(), Error> {
        let Some(call) = &mut self.call else { return Ok(()) };
        let came = call.await;
        self.call = None;
        match came? {
            Came::Taken(elements, wanted) => {
                self.next = if elements.len() < wanted { Next::Look } else { Next::Take };
                self.accept(shared, elements);
            }
            Came::Waited(elements, wanted, wait) => {
                if !wait.is_allowed {
                    self.refused = Some(Instant::now() + REFUSED);
                }
                // Without a word of the server's all other lists are as they were, and are watched still.
                let goes_on = !wait.rang && wait.is_allowed && Instant::now() < wait.rest.until;
                let goes_on = goes_on && elements.len() < wanted;
                self.next = if goes_on { Next::Rest(wait.rest) } else { Next::Look };
                self.accept(shared, elements);
            }
            Came::Looked(outlook, gate) => self.next = after(shared, outlook, gate),
            Came::Buried => {
                let mut table = locked(&shared.table);
                self.malformed.drain(..).for_each(|(receipt, _)| table.remove(receipt));
            }
            Came::Lost => return Err(shared.lose()),
        }
        Ok(())
    }

    fn accept(&mut self, shared: &Shared, elements: Vec<Element>) {
        let mut served = Vec::new();
        let mut table = locked(&shared.table);
        for element in elements {
            let receipt = self.number;
            self.number += 1;
            if served.last() != Some(&element.queue) {
                served.push(element.queue);
            }
            let read = envelope::read(&element.envelope);
            let delivery_count = read.as_ref().map_or(1, |read| read.delivery_count);
            let Element { tag, queue, step, envelope } = element;
            table.insert(receipt, Held { tag, queue, step, envelope, delivery_count });
            match (read, shared.sources.queues.get(queue)) {
                (Ok(read), Some(source)) => self.deliveries.push_back(Delivery {
                    message: read.message,
                    queue: source.name.clone(),
                    redelivered: read.redelivered,
                    delivery_count,
                    receipt: Receipt::Number(receipt),
                }),
                (Ok(_), None) => {}
                (Err(malformed), _) => self.malformed.push((receipt, malformed)),
            }
        }
        drop(table);
        self.last = served.last().copied().unwrap_or(self.last);
        if self.fair {
            for queue in served {
                self.order.retain(|place| *place != queue);
                self.order.push(queue);
            }
        }
    }
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump")
            .field("order", &self.order)
            .field("number", &self.number)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

async fn await_room(shared: &Shared) {
    tokio::select! {
        () = shared.room.notified() => {}
        () = shared.closing.cancelled() => {}
    }
}

fn after(shared: &Shared, outlook: Outlook, gate: Option<usize>) -> Next {
    let longest = if shared.is_told { TICK } else { poll_interval(shared) };
    let (wait, is_due) = match outlook {
        Outlook::Ready => return Next::Take,
        Outlook::Due(wait) if wait < longest => (wait.max(WAIT_MIN), true),
        Outlook::Due(_) | Outlook::Nothing => (longest, false),
    };
    Next::Rest(Rest { until: Instant::now() + wait, is_due, gate })
}

/// Whether a wait at a gate can be ended, as it must be when something comes elsewhere: without the right to that the server
/// tells of all lists, which is one trip slower.
pub(super) async fn may_end_waits(inner: &Inner, wire: &Wire) -> Result<bool, Error> {
    match inner.commands.command("end a wait", &unblock(wire)).await {
        Ok(_) => Ok(wire.greeting.id != 0),
        Err(Error::Unreachable { url, source }) => Err(Error::Unreachable { url, source }),
        Err(error) => {
            tracing::debug!(%error, "not waiting at lists");
            Ok(false)
        }
    }
}

/// Has the server tell when one of the keys changes that a look has read. False where it does not do that.
pub(super) async fn ask_to_be_told(wire: &Wire) -> Result<bool, Error> {
    match wire.track("be told of messages").await {
        Ok(()) => Ok(true),
        Err(Error::Unreachable { url, source }) => Err(Error::Unreachable { url, source }),
        Err(error) => {
            tracing::warn!(%error, "the server does not tell of new messages: asking it again and again, which is slower");
            Ok(false)
        }
    }
}

fn poll_interval(shared: &Shared) -> Duration {
    shared.inner.options.transport.polling_interval.unwrap_or(POLL).max(WAIT_MIN)
}
