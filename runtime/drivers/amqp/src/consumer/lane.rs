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
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};
use rwork_protocol::QueueName;
use tokio::time::Instant;

use super::credit::Account;
use crate::broker::locked;
use crate::declare::Kind;

/// A queue that is consumed.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: QueueName,
    /// Held for some moves.
    state: Mutex<State>,
}

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) tag: u64,
    /// The consumer by which it came.
    stream: u32,
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
    /// Credit that others need and this one has to spare: so much may stay.
    Less(usize),
}

/// A consumer of the channel.
#[derive(Debug)]
struct Stream {
    number: u32,
    consumer: lapin::Consumer,
    /// What the server may have sent by it and not had back.
    credit: usize,
    /// What it has sent, and is not settled.
    held: usize,
    /// We have asked the server to end it.
    is_ending: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) channel: Channel,
    pub(crate) kind: Kind,
    /// Counts channels.
    incarnation: u32,
    /// Oldest first.
    streams: Vec<Stream>,
    /// Counts consumers of all of the lane's channels.
    streams_begun: u32,
    /// The server ended one of them.
    is_cancelled: bool,
    is_closed: bool,
    /// Came, and not taken yet.
    inbox: BTreeMap<u64, Arrival>,
    /// The tag to be taken next.
    next: u64,
    /// Taken and not settled, with the consumer by which each came.
    unsettled: BTreeMap<u64, u32>,
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
    pub(crate) fn new(queue: QueueName, kind: Kind, channel: Channel) -> Self {
        Self { queue, state: Mutex::new(State::new(channel, kind, 0, 0)) }
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Goes on with another channel; nothing of the old one is ours any more.
    pub(crate) fn reopen(&self, channel: Channel, kind: Kind) {
        let mut state = self.locked();
        *state = State::new(channel, kind, state.incarnation + 1, state.streams_begun);
    }
}

impl State {
    fn new(channel: Channel, kind: Kind, incarnation: u32, streams_begun: u32) -> Self {
        Self {
            channel,
            kind,
            incarnation,
            streams: Vec::new(),
            streams_begun,
            is_cancelled: false,
            is_closed: false,
            inbox: BTreeMap::new(),
            next: 1,
            unsettled: BTreeMap::new(),
        }
    }

    /// What has to be mended for messages to be on their way at all.
    pub(crate) fn need(&self) -> Option<Need> {
        if self.is_closed {
            return None;
        }
        if !self.channel.status().connected() {
            return Some(Need::Channel);
        }
        self.is_cancelled.then_some(Need::Queue)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(crate) fn account(&self) -> Account {
        let credit = self.streams.iter().map(|stream| stream.credit).sum();
        let held_of_live: usize = self.streams.iter().map(|stream| stream.held).sum();
        let held = self.inbox.len() + self.unsettled.len();
        Account {
            credit,
            used: credit + held.saturating_sub(held_of_live),
            held,
            unsettled: self.unsettled.len(),
            is_hungry: held > 0 && held_of_live >= credit,
            consumers: self.streams.len(),
        }
    }

    /// The server sends so many more by this consumer.
    pub(crate) fn add(&mut self, consumer: lapin::Consumer, credit: u16) {
        let (number, credit) = (self.streams_begun, usize::from(credit));
        self.streams_begun += 1;
        self.streams.push(Stream { number, consumer, credit, held: 0, is_ending: false });
    }

    /// No two consumers of a channel may have the same.
    pub(crate) fn next_number(&self) -> u32 {
        self.streams_begun
    }

    /// Consumers to be ended for no more credit than this to be left, the newest first.
    pub(crate) fn shed(&mut self, left: usize) -> Vec<ShortString> {
        let mut credit: usize = self.streams.iter().map(|stream| stream.credit).sum();
        let mut tags = Vec::new();
        for stream in self.streams.iter_mut().rev().take_while(|stream| !stream.is_ending) {
            if credit <= left {
                break;
            }
            credit -= stream.credit;
            stream.is_ending = true;
            tags.push(stream.consumer.tag());
        }
        tags
    }

    /// The queue is there again: begins anew on the same channel.
    pub(crate) fn recover(&mut self, kind: Kind) {
        self.kind = kind;
        self.is_cancelled = false;
    }

    /// Takes in what has come. The task is woken when more comes.
    pub(crate) fn absorb(&mut self, context: &mut Context<'_>) {
        let now = Instant::now();
        let Self { streams, inbox, is_cancelled, .. } = self;
        loop {
            let before = inbox.len();
            streams.retain_mut(|stream| {
                loop {
                    match Pin::new(&mut stream.consumer).poll_next(context) {
                        Poll::Pending => return true,
                        Poll::Ready(Some(Ok(delivery))) => {
                            stream.held += 1;
                            inbox.insert(delivery.delivery_tag, Arrival::new(delivery, stream.number, now));
                        }
                        // The channel's error, or the consumer's end. The channel's state tells which.
                        Poll::Ready(Some(Err(_)) | None) => {
                            *is_cancelled |= !stream.is_ending;
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
        self.unsettled.insert(self.next, arrival.stream);
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
            && self.unsettled.contains_key(&tag.tag)
            && self.channel.status().connected()
    }

    /// Writes how deliveries end, all at once; the server does not answer. What is not held any more is left out.
    pub(crate) fn end(&mut self, ends: &Ends) {
        let incarnation = self.incarnation;
        let Self { unsettled, streams, channel, .. } = self;
        let mut held = |tags: &[Tag]| -> BTreeSet<u64> {
            let mut ours = BTreeSet::new();
            for tag in tags.iter().filter(|tag| tag.channel == incarnation) {
                let Some(number) = unsettled.remove(&tag.tag) else { continue };
                ours.insert(tag.tag);
                if let Some(stream) = streams.iter_mut().find(|stream| stream.number == number) {
                    stream.held -= 1;
                }
            }
            ours
        };
        // Before the acks, which may stand for everything before them.
        for tag in held(&ends.requeues) {
            let requeue = BasicNackOptions { requeue: true, multiple: false };
            written(channel.basic_nack(tag, requeue).now_or_never());
        }
        for tag in held(&ends.rejects) {
            written(channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never());
        }
        let mut acks = held(&ends.acks);
        let floor = self.unsettled.first_key_value().map_or(u64::MAX, |(tag, _)| *tag);
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
        self.streams.iter().map(|stream| stream.consumer.clone()).collect()
    }
}

impl Arrival {
    fn new(delivery: Delivery, stream: u32, at: Instant) -> Self {
        Self {
            tag: delivery.delivery_tag,
            stream,
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
