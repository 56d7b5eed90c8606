//! Taking: from the wish for messages to deliveries, and the waiting between.
//!
//! A call to the server that was begun is kept when whoever began it goes away: the next one gets what came of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rwork_broker::{Delivery, Disposition, Error, Reason, Receipt};
use rwork_protocol::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::{Held, Shared};
use crate::broker::locked;
use crate::envelope::{self, Malformed};
use crate::lease::lease_ms;
use crate::link::Wire;
use crate::options::QueueOrder;
use crate::settle::{Ended, settle};
use crate::take::{Element, Take, Taken};

/// How long a consumer trusts the server to tell it of messages. Asking shows that the connection lives.
const TICK: Duration = Duration::from_secs(1);
/// How often to ask a server that does not tell.
const POLL: Duration = Duration::from_millis(100);
/// A due time that has passed already is asked for again, but not in a tight loop.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// One consumer's taking.
pub(super) struct Pump {
    /// Places of queues, the first to be served first.
    order: Vec<usize>,
    fair: bool,
    /// Number of the next message: its receipt.
    next: u64,
    /// Came, and not handed out yet.
    deliveries: VecDeque<Delivery>,
    /// Came, and is no message.
    malformed: Vec<(u64, Malformed)>,
    call: Option<BoxFuture<'static, Result<Came, Error>>>,
    /// There was nothing: until then only the server's word is worth another look.
    rest: Option<Instant>,
}

enum Came {
    Taken(Taken),
    /// What was no message is among the dead letters.
    Buried,
    /// The lease was lost.
    Lost,
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
            next: 0,
            deliveries: VecDeque::new(),
            malformed: Vec::new(),
            call: None,
            rest: None,
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
        if let Some(until) = self.rest {
            tokio::select! {
                () = shared.bell.notified() => {}
                () = sleep_until(until) => {}
                () = shared.closing.cancelled() => {}
            }
            self.rest = None;
            return Ok(());
        }
        let room = shared.unsettled_max.saturating_sub(locked(&shared.table).len());
        if room == 0 {
            tokio::select! {
                () = shared.room.notified() => {}
                () = shared.closing.cancelled() => {}
            }
            return Ok(());
        }
        // What the server told before this take says nothing about the time after it.
        let _ = shared.bell.notified().now_or_never();
        self.call =
            Some(take(Arc::clone(shared), self.order.clone(), self.fair, self.next, max.min(room)).boxed());
        Ok(())
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
            Came::Taken(Taken::Some(elements)) => self.accept(shared, elements),
            Came::Taken(Taken::Nothing(due)) => {
                let longest = if shared.is_told { TICK } else { poll_interval(shared) };
                self.rest = Some(Instant::now() + due.unwrap_or(longest).clamp(WAIT_MIN, longest));
            }
            Came::Buried => {
                let mut table = locked(&shared.table);
                self.malformed.drain(..).for_each(|(receipt, _)| table.remove(receipt));
            }
            Came::Taken(Taken::Lost) | Came::Lost => return Err(shared.lose()),
        }
        Ok(())
    }

    fn accept(&mut self, shared: &Shared, elements: Vec<Element>) {
        let mut served = Vec::new();
        let mut table = locked(&shared.table);
        for element in elements {
            let receipt = self.next;
            self.next += 1;
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
        f.debug_struct("Pump").field("order", &self.order).field("next", &self.next).finish_non_exhaustive()
    }
}

/// Has the server tell when one of the keys changes that a take has read. False where it does not do that.
pub(super) async fn ask_to_be_told(wire: &Wire) -> Result<bool, Error> {
    let mut cmd = redis::cmd("CLIENT");
    cmd.arg("TRACKING").arg("ON").arg("NOLOOP");
    match wire.command("be told of messages", &cmd).await {
        Ok(_) => Ok(true),
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

async fn take(
    shared: Arc<Shared>,
    order: Vec<usize>,
    fair: bool,
    first: u64,
    max: usize,
) -> Result<Came, Error> {
    let take = Take {
        keys: &shared.inner.broker.keys,
        sources: &shared.sources,
        consumer: &shared.id,
        order: &order,
        fair,
        first,
        max,
        lease_ms: lease_ms(&shared.inner),
    };
    // A connection that died without a word is found out long before its answer would be too late.
    let taken = shared.inner.commands.watched(&shared.wire, take.call(&shared.wire)).await?;
    Ok(Came::Taken(taken))
}

/// Puts what is no message where somebody can look at it.
async fn bury(shared: Arc<Shared>, malformed: Vec<(u64, Malformed)>) -> Result<Came, Error> {
    let now = Timestamp::from_system(SystemTime::now());
    let ended: Vec<Ended> = {
        let table = locked(&shared.table);
        let end = |(receipt, why): &(u64, Malformed)| {
            let held = table.get(*receipt)?;
            let reason = Reason {
                kind: "undecodable".to_owned(),
                detail: why.to_string(),
                worker: shared.name.clone(),
                at: now,
            };
            tracing::warn!(error = %why, "a list element is no message: it is among the dead letters now");
            Some(Ended {
                tag: held.tag.clone(),
                number: *receipt,
                act: shared.act(held, &Disposition::DeadLetter(reason), now),
            })
        };
        malformed.iter().filter_map(end).collect()
    };
    let settled = settle(&shared.inner, &shared.id, &ended).await?;
    Ok(settled.map_or(Came::Lost, |_| Came::Buried))
}
