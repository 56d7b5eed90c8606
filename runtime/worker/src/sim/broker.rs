//! The model broker: leases or connections, redelivery, delays, dead letters, one queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use rwork_broker::{
    Broker, Capabilities, Consume, Consumer, DeadLetter, DeadLetterQuery, Delivery, Disposition, Publish,
    QueueInfo, Receipt, Settled, Settlement,
};
use rwork_protocol::service::{Error, RedactedUrl};
use rwork_protocol::{DecodeLimits, Message, QueueName, TaskId, Timestamp, decode};
use tokio::time::{Instant, sleep};

use super::ledger::{Account, End, Fate, Handed, Run};
use super::world::{State, World, unreachable_error};
use crate::clock::Clock;

const LEASE: Duration = Duration::from_secs(12);

/// Everything that the broker knows.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) capabilities: Capabilities,
    /// No one may consume.
    pub(super) refuses: bool,
    messages: BTreeMap<u64, Entry>,
    /// By place in the queue.
    ready: BTreeSet<(u64, u64)>,
    delayed: BTreeSet<(Timestamp, u64)>,
    consumers: BTreeMap<u64, Member>,
    numbers: u64,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    queue: QueueName,
    place: u64,
    /// Deliveries without an outcome.
    count: u32,
    redelivered: bool,
}

/// A consumer, alive or not.
#[derive(Debug)]
struct Member {
    worker: u64,
    /// What it may hold.
    unsettled_max: usize,
    /// Delivery number to serial.
    held: BTreeMap<u64, u64>,
    /// Taken by a receive that has not returned.
    stash: Vec<Delivery>,
    lease_until: Option<Instant>,
    /// A fault kept the last renewal from succeeding.
    disturbed: bool,
    /// Over: why, for what it still holds.
    over: Option<End>,
}

impl Queue {
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        let capabilities = Capabilities {
            delayed: rng.u32(0..10) > 0,
            priorities: None,
            lease: rng.bool().then_some(LEASE),
            counts_deliveries: true,
            atomic_publish: rng.bool(),
            exchanges: false,
            message_bytes_max: 1 << 20,
        };
        Self {
            capabilities,
            refuses: false,
            messages: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            consumers: BTreeMap::new(),
            numbers: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl World {
    /// Accepts a message: from now on it is accounted for.
    pub(super) fn accept(&self, publish: Publish) -> u64 {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let serial = state.queue.number();
        let message = publish.message;
        state.ledger.accounts.insert(serial, account(&message));
        let queue = QueueName::new(&publish.route.routing_key).unwrap();
        let entry = Entry { message, queue, place: serial, count: 0, redelivered: false };
        state.queue.messages.insert(serial, entry);
        match publish.not_before.filter(|at| *at > now) {
            Some(at) => drop(state.queue.delayed.insert((at, serial))),
            None => drop(state.queue.ready.insert((serial, serial))),
        }
        self.wake();
        serial
    }

    /// What time does: delays end, leases run out.
    pub(super) async fn pass_time(self) {
        loop {
            sleep(Duration::from_millis(100)).await;
            let (now, instant) = (self.now(), Instant::now());
            let mut state = self.lock();
            let later = state.queue.delayed.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut state.queue.delayed, later);
            due.into_iter().for_each(|(_, serial)| state.put_back(serial));
            let expired = |member: &Member| member.lease_until.is_some_and(|until| until <= instant);
            let expired: Vec<_> = state
                .queue
                .consumers
                .iter()
                .filter(|(_, member)| expired(member))
                .map(|(number, _)| *number)
                .collect();
            expired.into_iter().for_each(|consumer| state.expire(consumer));
            drop(state);
            self.wake();
        }
    }

    /// Every connection to the broker breaks; from now on it takes new ones, or refuses them.
    pub(super) fn break_off(&self, refuses: bool) {
        let mut state = self.lock();
        state.queue.refuses = refuses;
        let all: Vec<_> = state.queue.consumers.keys().copied().collect();
        all.into_iter().for_each(|consumer| state.lose(consumer, End::Cut));
        drop(state);
        self.wake();
    }

    /// A worker is gone: its connections break, its leases run out. Unless it died, it should have left nothing.
    pub(super) fn bury(&self, worker: u64, died: bool) {
        let mut state = self.lock();
        state.ledger.faults += u64::from(died);
        state.ledger.worker_is_gone(worker);
        let of_worker = |member: &Member| member.worker == worker && member.over.is_none();
        let left: Vec<_> = state
            .queue
            .consumers
            .iter()
            .filter(|(_, member)| of_worker(member))
            .map(|(number, _)| *number)
            .collect();
        if !died && !left.is_empty() && state.weather.is_calm() {
            state.ledger.violation(format!("worker {worker} went and closed nothing"));
        }
        for consumer in left {
            state.lose(consumer, End::Crashed);
        }
        drop(state);
        self.wake();
    }
}

impl State {
    fn put_back(&mut self, serial: u64) {
        if let Some(entry) = self.queue.messages.get(&serial) {
            self.queue.ready.insert((entry.place, serial));
        }
    }

    /// The consumer is over. With leases, what it holds comes back when they have run out; without, at once.
    fn lose(&mut self, consumer: u64, why: End) {
        let Some(member) = self.queue.consumers.get_mut(&consumer) else { return };
        member.over.get_or_insert(why);
        if member.lease_until.is_none() {
            self.give_back(consumer, true);
        }
    }

    fn expire(&mut self, consumer: u64) {
        let Some(member) = self.queue.consumers.get_mut(&consumer) else { return };
        member.lease_until = None;
        member.over.get_or_insert(if member.disturbed { End::LeaseLost } else { End::LeaseForgotten });
        self.give_back(consumer, true);
    }

    fn give_back(&mut self, consumer: u64, counted: bool) {
        let Some(member) = self.queue.consumers.get_mut(&consumer) else { return };
        let why = member.over.unwrap_or(End::Closed);
        member.stash.clear();
        for (number, serial) in std::mem::take(&mut member.held) {
            if let Some(entry) = self.queue.messages.get_mut(&serial)
                && counted
            {
                entry.count += 1;
                entry.redelivered = true;
            }
            self.ledger.end(serial, number, why);
            self.put_back(serial);
        }
    }

    /// Takes from the queue into the consumer's stash.
    fn take(&mut self, consumer: u64, max: usize) {
        let Some(member) = self.queue.consumers.get(&consumer) else { return };
        let (worker, room) = (member.worker, member.unsettled_max.saturating_sub(member.held.len()));
        for _ in 0..max.min(room) {
            let Some((_, serial)) = self.queue.ready.pop_first() else { return };
            let number = self.queue.number();
            let Some(entry) = self.queue.messages.get(&serial) else { continue };
            let mut message = entry.message.clone();
            // How the model executor knows what it runs.
            message.properties.correlation_id = Some(format!("{serial}/{number}"));
            let delivery = Delivery {
                message,
                queue: entry.queue.clone(),
                redelivered: entry.redelivered,
                delivery_count: entry.count + 1,
                receipt: Receipt::Number(number),
            };
            let succeeded = entry.redelivered && self.records.succeeded(serial);
            if let Some(account) = self.ledger.accounts.get_mut(&serial) {
                let handed = Handed { number, worker, had_succeeded: succeeded, run: Run::No, end: None };
                account.deliveries.push(handed);
            }
            if let Some(member) = self.queue.consumers.get_mut(&consumer) {
                member.held.insert(number, serial);
                member.stash.push(delivery);
            }
        }
    }

    fn settle(&mut self, consumer: u64, settlement: Settlement) -> Settled {
        let Receipt::Number(number) = settlement.receipt else { return Settled::Lost };
        let serial = self.queue.consumers.get_mut(&consumer).and_then(|member| member.held.remove(&number));
        let Some(serial) = serial else { return Settled::Lost };
        let (end, fate) = match settlement.disposition {
            Disposition::Ack => (End::Acked, Fate::Acked),
            Disposition::DeadLetter(reason) => (End::DeadLettered, Fate::Dead(reason)),
            Disposition::Requeue => (End::Requeued, Fate::Open),
            Disposition::Release => (End::Released, Fate::Open),
            Disposition::Delay(until) => {
                self.ledger.end(serial, number, End::Parked);
                self.queue.delayed.insert((until, serial));
                return Settled::Done;
            }
        };
        self.ledger.end(serial, number, end);
        if end == End::Requeued {
            let place = self.queue.number();
            if let Some(entry) = self.queue.messages.get_mut(&serial) {
                entry.count += 1;
                entry.redelivered = true;
                entry.place = place;
            }
        }
        if end == End::DeadLettered {
            self.check_identical(serial, settlement.message.as_ref());
        }
        match fate {
            Fate::Open => self.put_back(serial),
            fate => {
                self.queue.messages.remove(&serial);
                if let Some(account) = self.ledger.accounts.get_mut(&serial) {
                    account.fate = fate;
                }
            }
        }
        Settled::Done
    }

    fn check_identical(&mut self, serial: u64, dead: Option<&Message>) {
        let entry = self.queue.messages.get(&serial).map(|entry| &entry.message);
        let same = entry
            .zip(dead)
            .is_some_and(|(one, other)| one.headers == other.headers && one.body == other.body);
        if !same {
            self.ledger.violation(format!("message {serial}: its dead letter is not the message"));
        }
    }
}

fn account(message: &Message) -> Account {
    let decoded = decode(message, &DecodeLimits::default()).ok();
    let headers = decoded.as_ref().map(|decoded| &decoded.headers);
    let leads_to = decoded.as_ref().and_then(|decoded| decoded.embed.chain.as_ref()).and_then(|chain| {
        let last = rwork_protocol::json::elements(chain).ok()?.pop()?;
        let step = rwork_protocol::Signature::parse(&last).ok()?;
        TaskId::new(rwork_protocol::json::text(step.option("task_id")?).ok()?).ok()
    });
    Account {
        id: headers.map(|headers| headers.id.clone()),
        task: headers.map_or_else(String::new, |headers| headers.task.as_str().to_owned()),
        retries: headers.map_or(0, |headers| headers.retries),
        nesting: headers.map_or(0, |headers| headers.replaced_task_nesting),
        leads_to,
        deliveries: Vec::new(),
        fate: Fate::Open,
    }
}

/// One worker's connection to the model broker.
#[derive(Clone, Debug)]
pub(super) struct ModelBroker {
    pub(super) world: World,
    pub(super) worker: u64,
}

#[async_trait]
impl Broker for ModelBroker {
    fn capabilities(&self) -> Capabilities {
        self.world.lock().queue.capabilities
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<(), Error> {
        let passage = match self.world.enter(self.worker, "publish").await {
            Ok(passage) => passage,
            Err(error) => {
                let part = {
                    let mut state = self.world.lock();
                    state.ledger.faults += 1;
                    let atomic = state.queue.capabilities.atomic_publish;
                    if atomic { 0 } else { state.rng.usize(0..=batch.len()) }
                };
                batch.into_iter().take(part).for_each(|publish| {
                    self.world.accept(publish);
                });
                return Err(error);
            }
        };
        for publish in batch {
            let serial = self.world.accept(publish);
            self.world.trace(|| format!("worker {} publishes message {serial}", self.worker));
        }
        passage.leave().await
    }

    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error> {
        let passage = self.world.enter(self.worker, "consume").await?;
        if self.world.lock().queue.refuses {
            let (why, hint) = ("wrong password".to_owned(), "look at `broker_url`".to_owned());
            return Err(Error::Refused { url: RedactedUrl::new("model:"), why, hint });
        }
        let number = {
            let mut state = self.world.lock();
            let number = state.queue.number();
            let lease_until = state.queue.capabilities.lease.map(|lease| Instant::now() + lease);
            let member = Member {
                worker: self.worker,
                unsettled_max: options.unsettled_max,
                held: BTreeMap::new(),
                stash: Vec::new(),
                lease_until,
                disturbed: false,
                over: None,
            };
            state.queue.consumers.insert(number, member);
            number
        };
        if let Err(error) = passage.leave().await {
            // The consumer that nobody knows of is gone with its connection.
            self.world.lock().lose(number, End::Cut);
            return Err(error);
        }
        Ok(Box::new(ModelConsumer { world: self.world.clone(), worker: self.worker, number }))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        Ok(Vec::new())
    }

    async fn purge(&self, _: &QueueName) -> Result<u64, Error> {
        Ok(0)
    }

    async fn dead_letters(&self, _: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
        Ok(Vec::new())
    }

    async fn retry_dead_letters(&self, _: DeadLetterQuery) -> Result<u64, Error> {
        Ok(0)
    }

    async fn purge_dead_letters(&self, _: DeadLetterQuery) -> Result<u64, Error> {
        Ok(0)
    }
}

#[derive(Debug)]
struct ModelConsumer {
    world: World,
    worker: u64,
    number: u64,
}

impl ModelConsumer {
    /// Whether the consumer still stands; now and then its connection is cut at this very moment.
    fn stands(&self) -> Result<(), Error> {
        let stormy = self.world.stormy();
        let mut state = self.world.lock();
        let cut = state.weather.cut;
        if stormy && cut > 0 && state.rng.u32(0..1000) < cut {
            state.ledger.faults += 1;
            state.lose(self.number, End::Cut);
        }
        match state.queue.consumers.get(&self.number).map(|member| member.over) {
            Some(None) => Ok(()),
            Some(Some(End::LeaseLost | End::LeaseForgotten)) => {
                Err(Error::LeaseLost { name: format!("worker {}", self.worker) })
            }
            _ => Err(unreachable_error()),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        self.world.lock().queue.consumers.get_mut(&self.number).map(change)
    }
}

#[async_trait]
impl Consumer for ModelConsumer {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, Error> {
        let passage = self.world.enter(self.worker, "receive").await?;
        loop {
            let ready = self.world.ready().notified();
            self.stands()?;
            let full = {
                let mut state = self.world.lock();
                let stashed = state.queue.consumers.get(&self.number).map_or(0, |member| member.stash.len());
                if stashed == 0 {
                    state.take(self.number, max);
                }
                state.queue.consumers.get(&self.number).is_some_and(|member| !member.stash.is_empty())
            };
            if full {
                break;
            }
            ready.await;
        }
        // A call that is dropped or fails here leaves what it took to the next one.
        passage.leave().await?;
        tokio::task::yield_now().await;
        self.stands()?;
        let taken = self.with(|member| member.stash.drain(..max.min(member.stash.len())).collect::<Vec<_>>());
        Ok(taken.unwrap_or_default())
    }

    async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>, Error> {
        let passage = self.world.enter(self.worker, "settle").await?;
        self.stands()?;
        let settled = {
            let mut state = self.world.lock();
            batch.into_iter().map(|settlement| state.settle(self.number, settlement)).collect()
        };
        self.world.wake();
        match passage.leave().await {
            Ok(()) => Ok(settled),
            // The answer is lost with the connection; whether it was settled nobody can say.
            Err(_) => {
                let mut state = self.world.lock();
                state.ledger.faults += 1;
                state.lose(self.number, End::Cut);
                Err(unreachable_error())
            }
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        // Until it has succeeded, whatever happens to it is the weather's fault.
        self.with(|member| member.disturbed = true);
        let passage = self.world.enter(self.worker, "renew").await?;
        self.stands()?;
        let lease = self.world.lock().queue.capabilities.lease;
        self.with(|member| {
            member.lease_until = lease.map(|lease| Instant::now() + lease);
            member.disturbed = false;
        });
        passage.leave().await
    }

    async fn close(&self) -> Result<(), Error> {
        let passage = self.world.enter(self.worker, "close").await?;
        {
            let mut state = self.world.lock();
            if let Some(member) = state.queue.consumers.get_mut(&self.number)
                && member.over.is_none()
            {
                member.over = Some(End::Closed);
                member.lease_until = None;
                state.give_back(self.number, false);
            }
        }
        self.world.wake();
        passage.leave().await
    }
}
