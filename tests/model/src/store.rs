//! The server's side.

use std::collections::{BTreeMap, BTreeSet};

use rwork_backend::Store as ToStore;
use rwork_broker::{Delivery, Error, Ownership, Receipt, RedactedUrl};
use rwork_protocol::{Message, QueueName, Record, TaskId, Timestamp};

use crate::event::{Event, How};
use crate::member::{ConsumerId, Held, Line, Member};
use crate::messages::{Messages, Serial};
use crate::records::Records;

/// Promises of a store, and what it will never take.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What keeps a delivery its consumer's.
    pub ownership: Ownership,
    /// Commits carry records.
    pub commits_records: bool,
    /// Queues into which nothing can be published.
    pub closed_queues: BTreeSet<QueueName>,
    /// Records that can't be stored.
    pub unstorable: fn(&ToStore) -> bool,
}

/// Everything that a store knows.
#[derive(Clone, Debug)]
pub struct Store {
    /// Promises of the store.
    pub rules: Rules,
    /// No room: nothing is accepted that adds to what is there.
    pub is_full: bool,
    pub(crate) incarnation: u64,
    pub(crate) messages: Messages,
    pub(crate) members: BTreeMap<ConsumerId, Member>,
    pub(crate) records: Records,
    events: Vec<Event>,
}

impl Store {
    /// An empty one.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            is_full: false,
            incarnation: 1,
            messages: Messages::default(),
            members: BTreeMap::new(),
            records: Records::default(),
            events: Vec::new(),
        }
    }

    /// Says what has happened since the last time.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Lets time pass: delays end. True when there were any.
    pub fn pass_time(&mut self, now: Timestamp) -> bool {
        self.messages.wake(now)
    }

    /// A message that is not forgotten.
    pub fn message(&self, serial: Serial) -> Option<&Message> {
        self.messages.get(serial).map(|entry| &entry.message)
    }

    /// A record.
    pub fn record(&self, id: &TaskId) -> Option<&Record> {
        self.records.get(id)
    }

    /// Deletes a record; true when there was one.
    pub fn forget_record(&mut self, id: &TaskId) -> bool {
        self.records.forget(id)
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = (&TaskId, &Record)> {
        self.records.all()
    }

    /// Deliveries that a consumer holds.
    pub fn held(&self, consumer: ConsumerId) -> impl Iterator<Item = (Receipt, &Held)> {
        let held = self.members.get(&consumer).map(|member| &member.held);
        held.into_iter().flatten().map(|(receipt, held)| (*receipt, held))
    }

    /// A delivery that a consumer holds.
    pub fn delivery_of(&self, consumer: ConsumerId, receipt: Receipt) -> Option<Delivery> {
        let held = self.members.get(&consumer)?.held.get(&receipt)?;
        self.delivery(receipt, held)
    }

    /// Messages that a consumer could take now.
    pub fn ready_for(&self, consumer: ConsumerId) -> usize {
        let queues = self.members.get(&consumer).into_iter().flat_map(|member| &member.queues);
        queues.map(|queue| self.messages.ready_in(queue).count()).sum()
    }

    /// A consumer's counter of renewals.
    pub fn counter(&self, consumer: ConsumerId) -> u64 {
        self.members.get(&consumer).map_or(0, |member| member.counter)
    }

    /// Messages that have not ended.
    pub fn open(&self) -> impl Iterator<Item = Serial> {
        self.messages.open()
    }

    /// Consumers that are not known as dead.
    pub fn living(&self) -> impl Iterator<Item = ConsumerId> {
        self.members.iter().filter(|(_, member)| !member.is_dead).map(|(id, _)| *id)
    }

    /// Data loss: an earlier state of this store takes its place.
    pub fn roll_back_to(&mut self, mut earlier: Self) {
        earlier.messages.number_after(&self.messages);
        earlier.events = std::mem::take(&mut self.events);
        earlier.is_full = self.is_full;
        *self = earlier;
    }

    /// Data loss: everything is gone.
    pub fn lose_everything(&mut self) {
        let mut messages = Messages::default();
        messages.number_after(&self.messages);
        self.messages = messages;
        self.members.clear();
        self.records = Records::default();
        self.incarnation += 1;
    }

    /// A connection that kept deliveries is lost: they go back, marked.
    pub fn drop_connection(&mut self, consumer: ConsumerId) {
        let Some(member) = self.members.remove(&consumer) else { return };
        self.give_back(consumer, member.held, |_| How::Cut);
    }

    /// The living consumer behind a line.
    pub(crate) fn standing(&mut self, line: Line) -> Result<&mut Member, Error> {
        match self.known(line) {
            Ok(member) if !member.is_dead => Ok(member),
            _ => Err(stale(line)),
        }
    }

    /// The consumer behind a line, dead or alive.
    pub(crate) fn known(&mut self, line: Line) -> Result<&mut Member, Error> {
        let is_same = self.incarnation == line.incarnation;
        let member = self.members.get_mut(&line.consumer).filter(|_| is_same);
        member.filter(|member| member.token == line.token).ok_or_else(|| stale(line))
    }

    /// Messages go back to the heads of their queues, the first of them first again.
    pub(crate) fn give_back(
        &mut self,
        consumer: ConsumerId,
        held: BTreeMap<Receipt, Held>,
        how: impl Fn(Receipt) -> How,
    ) {
        for (receipt, Held { serial, count }) in held.into_iter().rev() {
            let how = how(receipt);
            if let Some(entry) = self.messages.get_mut(serial) {
                match how {
                    How::Closed(false) => entry.starts = count.saturating_sub(1),
                    _ => entry.redelivered = true,
                }
            }
            self.messages.put_at_head(serial);
            self.tell(Event::Ended { serial, consumer, receipt, how });
        }
    }

    /// What a held message is delivered as.
    pub(crate) fn delivery(&self, receipt: Receipt, held: &Held) -> Option<Delivery> {
        let entry = self.messages.get(held.serial)?;
        Some(Delivery {
            message: entry.message.clone(),
            queue: entry.queue.clone(),
            redelivered: entry.redelivered,
            delivery_count: held.count,
            receipt,
        })
    }
}

/// The store refuses this consumer, or this line of it.
pub(crate) fn stale(line: Line) -> Error {
    Error::LeaseLost { name: format!("consumer {}", line.consumer.0) }
}

pub(crate) fn full() -> Error {
    let (why, hint) = ("no room".to_owned(), "make room".to_owned());
    Error::Full { url: RedactedUrl::new("model:"), why, hint }
}
