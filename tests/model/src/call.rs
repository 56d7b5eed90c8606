//! Calls of drivers, as values. Each has its effect at once or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rwork_backend::{Store as ToStore, Stored};
use rwork_broker::{Batch, Committed, Consume, Delivery, Error, Publish, Receipt, Resumed, Room};
use rwork_protocol::{QueueName, Timestamp};

use crate::event::{Event, How};
use crate::member::{ConsumerId, Held, Line, Member, Token};
use crate::store::{Store, full};

/// One call.
pub trait Call: Clone + fmt::Debug + Send + Sync + 'static {
    /// The answer.
    type Answer: fmt::Debug + Send + 'static;

    /// Its effect, and the answer.
    ///
    /// # Errors
    /// As the contract says of the call; nothing is changed then.
    fn apply(&self, store: &mut Store, now: Timestamp) -> Result<Self::Answer, Error>;
}

/// [`rwork_broker::Broker::publish`].
#[derive(Clone, Debug)]
pub struct Post(pub Vec<Publish>);

impl Call for Post {
    type Answer = Vec<Result<(), String>>;

    fn apply(&self, store: &mut Store, now: Timestamp) -> Result<Self::Answer, Error> {
        if store.is_full {
            return Err(full());
        }
        Ok(self.0.iter().map(|publish| store.accept(publish, None, now)).collect())
    }
}

/// [`rwork_backend::ResultBackend::store`]. One that can't be stored refuses the call, without effect.
#[derive(Clone, Debug)]
pub struct StoreRecords(pub Vec<ToStore>);

impl Call for StoreRecords {
    type Answer = Vec<Stored>;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<Self::Answer, Error> {
        if self.0.iter().any(store.rules.unstorable) {
            let act = "store a record".to_owned();
            return Err(Error::Act { act, retryable: false, source: "not taken".into() });
        }
        Ok(self.0.iter().map(|record| store.put_record(record)).collect())
    }
}

/// [`rwork_broker::Broker::consume`]: a new consumer, by an id and a token of the driver's making.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its identity.
    pub consumer: ConsumerId,
    /// Its first token.
    pub token: Token,
    /// What it takes.
    pub options: Consume,
}

impl Call for Open {
    /// The store's incarnation.
    type Answer = u64;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<u64, Error> {
        store.members.insert(self.consumer, Member::new(&self.options, self.token));
        Ok(store.incarnation)
    }
}

/// [`rwork_broker::Consumer::receive`], without the waiting.
#[derive(Clone, Debug)]
pub struct Take {
    /// Consumer that takes.
    pub line: Line,
    /// The number of the first delivery.
    pub first: u64,
    /// Messages and bytes at most.
    pub room: Room,
}

impl Call for Take {
    type Answer = Vec<Delivery>;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<Self::Answer, Error> {
        let member = store.standing(self.line)?;
        let (queues, room) = (member.queues.clone(), member.room().min(self.room.messages));
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < room && bytes < self.room.bytes {
            let Some(serial) = store.messages.next(&queues) else { break };
            let receipt = Receipt(self.first + taken.len() as u64);
            let Some(delivery) = store.hand_over(self.line.consumer, receipt, serial) else { break };
            bytes += delivery.message.size();
            taken.push(delivery);
        }
        Ok(taken)
    }
}

/// [`rwork_broker::Consumer::commit`].
#[derive(Clone, Debug)]
pub struct CommitBatch {
    /// Consumer that commits.
    pub line: Line,
    /// The batch.
    pub batch: Batch,
}

impl Call for CommitBatch {
    type Answer = Vec<Committed>;

    /// A dead consumer is answered as well: what it repeats, and what no delivery fences.
    fn apply(&self, store: &mut Store, now: Timestamp) -> Result<Self::Answer, Error> {
        store.commit(self.line, &self.batch, now)
    }
}

/// [`rwork_broker::Consumer::renew`].
#[derive(Clone, Debug)]
pub struct Renew {
    /// Consumer that renews.
    pub line: Line,
}

/// The answer to [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Deliveries held.
    pub held: usize,
    /// The other consumers that are not known as dead, with their counters.
    pub others: Vec<(ConsumerId, u64)>,
}

impl Call for Renew {
    type Answer = Renewed;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<Renewed, Error> {
        let member = store.standing(self.line)?;
        member.counter += 1;
        let held = member.held.len();
        let others =
            store.members.iter().filter(|(id, member)| **id != self.line.consumer && !member.is_dead);
        Ok(Renewed { held, others: others.map(|(id, member)| (*id, member.counter)).collect() })
    }
}

/// [`rwork_broker::Consumer::resume`].
#[derive(Clone, Debug)]
pub struct Resume {
    /// The consumer, and the token of its new line.
    pub line: Line,
    /// The tokens that its last line may have.
    pub accepted: Vec<Token>,
    /// The deliveries that its caller has.
    pub known: BTreeSet<Receipt>,
    /// The number of the first delivery that its caller does not have.
    pub first: u64,
}

impl Call for Resume {
    type Answer = Resumed;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<Resumed, Error> {
        if store.incarnation != self.line.incarnation {
            return Ok(Resumed::Forgotten);
        }
        let consumer = self.line.consumer;
        let member = store.members.get_mut(&consumer);
        let Some(member) = member.filter(|member| self.accepted.contains(&member.token)) else {
            return Ok(Resumed::Dead);
        };
        // Of a dead one, too: its last batch is asked for by this token.
        member.token = self.line.token;
        if member.is_dead {
            return Ok(Resumed::Dead);
        }
        // A sign of life, as a renewal is.
        member.counter += 1;
        let held = std::mem::take(&mut member.held);
        let gone = self.known.iter().filter(|receipt| !held.contains_key(receipt)).copied().collect();
        let (kept, fresh): (BTreeMap<_, _>, BTreeMap<_, _>) =
            held.into_iter().partition(|(receipt, _)| self.known.contains(receipt));
        let renumbered = (self.first..).map(Receipt).zip(&fresh);
        let renumbered: Vec<(Receipt, Receipt, Held)> =
            renumbered.map(|(to, (from, held))| (*from, to, held.clone())).collect();
        member.held = kept;
        member.held.extend(renumbered.iter().map(|(_, to, held)| (*to, held.clone())));
        let mut deliveries = Vec::with_capacity(renumbered.len());
        for (from, to, held) in renumbered {
            store.tell(Event::Renumbered { consumer, from, to });
            deliveries.extend(store.delivery(to, &held));
        }
        Ok(Resumed::Stands { fresh: deliveries, gone })
    }
}

/// One consumer finds another dead.
#[derive(Clone, Debug)]
pub struct Reap {
    /// The dead one.
    pub consumer: ConsumerId,
    /// Its counter as it was seen; another one: it lives.
    pub counter: u64,
}

impl Call for Reap {
    /// True when it was the first to find it.
    type Answer = bool;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<bool, Error> {
        let member = store.members.get_mut(&self.consumer);
        let Some(member) = member.filter(|member| !member.is_dead && member.counter == self.counter) else {
            return Ok(false);
        };
        member.is_dead = true;
        let held = std::mem::take(&mut member.held);
        store.give_back(self.consumer, held, |_| How::Reaped);
        Ok(true)
    }
}

/// [`rwork_broker::Consumer::close`].
#[derive(Clone, Debug)]
pub struct Close {
    /// Consumer that closes.
    pub line: Line,
    /// Deliveries that may have begun.
    pub started: Vec<Receipt>,
}

impl Call for Close {
    type Answer = ();

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<(), Error> {
        let consumer = self.line.consumer;
        let is_known = store.members.get(&consumer).filter(|member| !member.is_dead);
        if store.incarnation != self.line.incarnation || is_known.is_none() {
            return Ok(());
        }
        store.standing(self.line)?;
        if let Some(member) = store.members.remove(&consumer) {
            store.give_back(consumer, member.held, |receipt| How::Closed(self.started.contains(&receipt)));
        }
        Ok(())
    }
}

/// A look at a store whose answer was given already: these deliveries were handed out, in this order.
#[derive(Clone, Debug)]
pub struct Look {
    /// Consumer that took.
    pub line: Line,
    /// Deliveries that were taken.
    pub deliveries: Vec<Delivery>,
}

impl Call for Look {
    /// What differs from what may be handed out; empty: nothing.
    type Answer = Vec<String>;

    fn apply(&self, store: &mut Store, _: Timestamp) -> Result<Self::Answer, Error> {
        let member = store.standing(self.line)?;
        let queues = member.queues.clone();
        let mut wrong = Vec::new();
        for delivery in &self.deliveries {
            match store.find(&queues, delivery) {
                Some(serial) => {
                    store.messages.take(serial);
                    let ours = store.hand_over(self.line.consumer, delivery.receipt, serial);
                    if !ours.as_ref().is_some_and(|ours| is_same(ours, delivery)) {
                        wrong.push(format!(
                            "handed out {}, expected {}",
                            shown(delivery),
                            ours.as_ref().map_or("nothing".to_owned(), shown)
                        ));
                    }
                }
                None => wrong.push(format!("handed out what was not in a queue: {}", shown(delivery))),
            }
        }
        Ok(wrong)
    }
}

/// The same delivery, whatever a broker adds to a message's properties.
fn is_same(ours: &Delivery, theirs: &Delivery) -> bool {
    let told = |delivery: &Delivery| {
        let Delivery { queue, redelivered, delivery_count, receipt, .. } = delivery;
        (queue.clone(), *redelivered, *delivery_count, *receipt)
    };
    told(ours) == told(theirs)
}

fn shown(delivery: &Delivery) -> String {
    let Delivery { message, queue, redelivered, delivery_count, receipt } = delivery;
    let body = String::from_utf8_lossy(&message.body);
    format!("{body} of `{queue}` as {receipt:?}, redelivered {redelivered}, number {delivery_count}")
}

impl Store {
    fn find(&self, queues: &[QueueName], delivery: &Delivery) -> Option<u64> {
        let queue = queues.iter().find(|queue| **queue == delivery.queue)?;
        // Its headers may be marked, as kombu marks them.
        let same = |serial: &u64| {
            self.messages.get(*serial).is_some_and(|entry| entry.message.body == delivery.message.body)
        };
        self.messages.ready_in(queue).find(same)
    }

    pub(crate) fn hand_over(
        &mut self,
        consumer: ConsumerId,
        receipt: Receipt,
        serial: u64,
    ) -> Option<Delivery> {
        let held = Held { serial, count: self.messages.get(serial)?.starts + 1 };
        let delivery = self.delivery(receipt, &held)?;
        let line = |line: &mut Member| line.held.insert(receipt, held);
        if self.members.get_mut(&consumer).and_then(line).is_some() {
            self.tell(Event::Broken(format!("{receipt:?} of {consumer:?} was given twice")));
        }
        self.tell(Event::Taken { serial, consumer, receipt, redelivered: delivery.redelivered });
        Some(delivery)
    }

    /// Accepts a message, or says why it never will.
    pub(crate) fn accept(
        &mut self,
        publish: &Publish,
        by: Option<(ConsumerId, Option<Receipt>)>,
        now: Timestamp,
    ) -> Result<(), String> {
        let queue = self.queue_of(publish)?;
        let serial = self.messages.accept(queue, publish, now);
        self.tell(Event::Accepted { serial, by });
        Ok(())
    }

    pub(crate) fn queue_of(&self, publish: &Publish) -> Result<QueueName, String> {
        let route = &publish.route;
        let queue = QueueName::new(&route.routing_key).map_err(|error| error.to_string())?;
        if !route.exchange.is_empty() || self.rules.closed_queues.contains(&queue) {
            return Err(format!("nothing can be published to {route:?}"));
        }
        Ok(queue)
    }

    pub(crate) fn put_record(&mut self, store: &ToStore) -> Stored {
        let stored = self.records.put(store);
        if stored == Stored::Written {
            let (id, state) = (store.record.task_id.clone(), store.record.status.clone());
            self.tell(Event::Recorded { id, state, from: store.correlation_id.clone() });
        }
        stored
    }
}
