//! One queue's channel: what comes over it, what of that is not settled yet, and the acks that go back.
//!
//! Delivery tags of a channel are consecutive. Messages are taken in their order without a gap, so that every tag up to
//! the one taken last is either settled or among those that are remembered here: one ack may then stand for many.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures_util::{FutureExt as _, Stream as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::{BasicProperties, Channel};
use rwork_protocol::QueueName;
use tokio::time::Instant;

use crate::broker::locked;
use crate::declare::Kind;

/// A queue that is consumed.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: QueueName,
    /// The most that may be unsettled of it.
    pub(crate) share: usize,
    /// Held for some moves.
    state: Mutex<State>,
}

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) tag: u64,
    pub(crate) at: Instant,
    pub(crate) redelivered: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// A delivery by the channel over which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Which of the lane's channels; they die.
    pub(crate) channel: u32,
    pub(crate) tag: u64,
}

/// What is missing for messages to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The channel is gone.
    Channel,
    /// The server ended the consuming: the queue was deleted or moved.
    Queue,
    /// It may send so many more.
    Credit(u16),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) channel: Channel,
    pub(crate) kind: Kind,
    /// Counts channels.
    incarnation: u32,
    /// Each with credit of its own.
    streams: Vec<lapin::Consumer>,
    /// What the server may send, all consumers of the channel together.
    credit: usize,
    /// The server ended one of them.
    is_cancelled: bool,
    is_closed: bool,
    /// Came, and not taken yet.
    inbox: BTreeMap<u64, Arrival>,
    /// The tag to be taken next.
    next: u64,
    /// Taken, and not settled.
    unsettled: BTreeSet<u64>,
}

/// How deliveries of one lane end.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) acks: Vec<Tag>,
    /// Back to the queue.
    pub(crate) requeues: Vec<Tag>,
    /// To the queue's dead-letter exchange where it has one, or away.
    pub(crate) rejects: Vec<Tag>,
}

impl Lane {
    pub(crate) fn new(queue: QueueName, share: usize, kind: Kind, channel: Channel) -> Self {
        Self { queue, share, state: Mutex::new(State::new(channel, kind, 0)) }
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Goes on with another channel; nothing of the old one is ours any more.
    pub(crate) fn reopen(&self, channel: Channel, kind: Kind) {
        let mut state = self.locked();
        *state = State::new(channel, kind, state.incarnation + 1);
    }
}

impl State {
    fn new(channel: Channel, kind: Kind, incarnation: u32) -> Self {
        Self {
            channel,
            kind,
            incarnation,
            streams: Vec::new(),
            credit: 0,
            is_cancelled: false,
            is_closed: false,
            inbox: BTreeMap::new(),
            next: 1,
            unsettled: BTreeSet::new(),
        }
    }

    /// What has to be done for `wanted` messages to be on their way.
    pub(crate) fn need(&self, wanted: usize) -> Option<Need> {
        if self.is_closed {
            return None;
        }
        if !self.channel.status().connected() {
            return Some(Need::Channel);
        }
        if self.is_cancelled {
            return Some(Need::Queue);
        }
        let missing = wanted.saturating_sub(self.credit);
        (missing > 0).then(|| Need::Credit(u16::try_from(missing).unwrap_or(u16::MAX)))
    }

    pub(crate) fn credit(&self) -> usize {
        self.credit
    }

    /// How many were taken and are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// The server sends so many more.
    pub(crate) fn add(&mut self, stream: lapin::Consumer, credit: u16) {
        self.streams.push(stream);
        self.credit += usize::from(credit);
    }

    /// The queue is there again: begins anew on the same channel.
    pub(crate) fn recover(&mut self, kind: Kind) {
        self.kind = kind;
        self.is_cancelled = false;
    }

    /// Takes in what has come. The task is woken when more comes.
    pub(crate) fn absorb(&mut self, context: &mut Context<'_>) {
        let now = Instant::now();
        let Self { streams, inbox, is_cancelled, credit, .. } = self;
        loop {
            let before = inbox.len();
            streams.retain_mut(|stream| {
                loop {
                    match Pin::new(&mut *stream).poll_next(context) {
                        Poll::Pending => return true,
                        Poll::Ready(Some(Ok(delivery))) => {
                            inbox.insert(delivery.delivery_tag, Arrival::new(delivery, now));
                        }
                        // The channel's error, or the consumer's end. The channel's state tells which.
                        Poll::Ready(Some(Err(_)) | None) => {
                            *is_cancelled = true;
                            *credit = 0;
                            return false;
                        }
                    }
                }
            });
            // Of two streams the one looked at first may have got an earlier message since.
            if streams.len() < 2 || inbox.len() == before {
                return;
            }
        }
    }

    /// The same for whoever does not wait.
    pub(crate) fn look(&mut self) {
        self.absorb(&mut Context::from_waker(Waker::noop()));
    }

    /// The next message, which is then unsettled.
    pub(crate) fn take(&mut self) -> Option<Arrival> {
        let arrival = self.inbox.remove(&self.next)?;
        self.unsettled.insert(self.next);
        self.next += 1;
        Some(arrival)
    }

    /// Whether there is one.
    pub(crate) fn is_ready(&self) -> bool {
        self.inbox.contains_key(&self.next)
    }

    /// How many have come and are not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// When the one that waits longest came.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        self.inbox.first_key_value().map(|(_, arrival)| arrival.at)
    }

    pub(crate) fn tag(&self, tag: u64) -> Tag {
        Tag { channel: self.incarnation, tag }
    }

    /// Whether this delivery can still be settled.
    pub(crate) fn holds(&self, tag: Tag) -> bool {
        tag.channel == self.incarnation
            && self.unsettled.contains(&tag.tag)
            && self.channel.status().connected()
    }

    /// Writes how deliveries end, all at once; the server does not answer. What is not held any more is left out.
    pub(crate) fn end(&mut self, ends: &Ends) {
        let incarnation = self.incarnation;
        let held = |tags: &[Tag], unsettled: &mut BTreeSet<u64>| -> BTreeSet<u64> {
            let tags = tags.iter().filter(|tag| tag.channel == incarnation);
            tags.filter(|tag| unsettled.remove(&tag.tag)).map(|tag| tag.tag).collect()
        };
        let channel = &self.channel;
        // Before the acks, which may stand for everything before them.
        for tag in held(&ends.requeues, &mut self.unsettled) {
            let requeue = BasicNackOptions { requeue: true, multiple: false };
            written(channel.basic_nack(tag, requeue).now_or_never());
        }
        for tag in held(&ends.rejects, &mut self.unsettled) {
            written(channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never());
        }
        let mut acks = held(&ends.acks, &mut self.unsettled);
        let floor = self.unsettled.first().copied().unwrap_or(u64::MAX);
        let single = acks.split_off(&floor);
        if let Some(last) = acks.last() {
            let multiple = acks.len() > 1;
            written(channel.basic_ack(*last, BasicAckOptions { multiple }).now_or_never());
        }
        for tag in single {
            written(channel.basic_ack(tag, BasicAckOptions { multiple: false }).now_or_never());
        }
    }

    /// Takes nothing any more; the consumers to be cancelled.
    pub(crate) fn close(&mut self) -> Vec<lapin::Consumer> {
        self.is_closed = true;
        self.streams.clone()
    }
}

impl Arrival {
    fn new(delivery: Delivery, at: Instant) -> Self {
        Self {
            tag: delivery.delivery_tag,
            at,
            redelivered: delivery.redelivered,
            properties: delivery.properties,
            body: delivery.data,
        }
    }
}

/// A frame is on its way once its future was looked at; that the channel is gone is found out by whoever takes from it.
fn written(answer: Option<lapin::Result<()>>) {
    if let Some(Err(error)) = answer {
        tracing::debug!(%error, "a delivery could not be settled: the server gives it to somebody else");
    }
}
