//! A consumer as the thread that writes knows it: what it waits for, what it was given, what it holds.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rwork_broker::{Delivery, Error, Receipt, Room};
use rwork_protocol::QueueName;
use tokio::sync::Notify;

/// State that a consumer and the writing thread share.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// The consumer's name, for its errors.
    name: String,
    /// Held for a few moves by either side.
    mail: Mutex<Mail>,
    /// Rung by the thread after it changed `mail`.
    pub(crate) arrived: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    /// Wish of the waiting call; `None`: nobody waits.
    wanted: Option<Room>,
    /// Taken and not yet returned: a call may be cancelled after its messages were taken.
    stash: VecDeque<Delivery>,
    /// Told to the next call.
    failure: Option<Error>,
    /// Nothing will come any more.
    closed: bool,
}

impl Mailbox {
    pub(crate) fn new(name: String) -> Self {
        Self { name, mail: Mutex::default(), arrived: Notify::new() }
    }

    /// Deliveries that are here already, or an error; otherwise asks for them.
    pub(crate) fn take_or_ask(&self, room: Room) -> Option<Result<Vec<Delivery>, Error>> {
        let mut mail = self.lock();
        if let Some(failure) = mail.failure.take() {
            return Some(Err(failure));
        }
        if mail.closed {
            return Some(Err(Error::Closed { name: self.name.clone() }));
        }
        if mail.stash.is_empty() {
            mail.wanted = Some(room);
            return None;
        }
        let count = fitting(&mail.stash, room);
        Some(Ok(mail.stash.drain(..count).collect()))
    }

    /// Takes the wish back.
    pub(crate) fn ask_no_more(&self) {
        self.lock().wanted = None;
    }

    /// Drops those of these that were taken and not yet returned; returns which they were.
    pub(crate) fn drop_these(&self, lost: &HashSet<Receipt>) -> HashSet<Receipt> {
        let mut mail = self.lock();
        let (lost, kept) =
            mail.stash.drain(..).partition::<VecDeque<_>, _>(|held| lost.contains(&held.receipt));
        mail.stash = kept;
        lost.iter().map(|delivery| delivery.receipt).collect()
    }

    fn wanted(&self) -> Option<Room> {
        self.lock().wanted
    }

    fn deliver(&self, deliveries: Vec<Delivery>) {
        let mut mail = self.lock();
        mail.stash.extend(deliveries);
        mail.wanted = None;
        drop(mail);
        self.arrived.notify_one();
    }

    fn fail(&self, why: Error) {
        let mut mail = self.lock();
        mail.failure = Some(why);
        mail.wanted = None;
        drop(mail);
        self.arrived.notify_one();
    }

    fn close(&self) {
        let mut mail = self.lock();
        mail.closed = true;
        mail.stash.clear();
        drop(mail);
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deliveries at the head of the stash that go into the room: the last may go beyond its bytes.
fn fitting(stash: &VecDeque<Delivery>, room: Room) -> usize {
    let mut bytes = 0;
    let fits = |delivery: &&Delivery| {
        let fits = bytes < room.bytes.max(1);
        bytes += delivery.message.size();
        fits
    };
    stash.iter().take(room.messages).take_while(fits).count()
}

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// `msg.seq`.
    pub(crate) sequence: i64,
    /// `Delivery::delivery_count`.
    pub(crate) count: u32,
}

/// A consumer of this process.
#[derive(Debug)]
pub(crate) struct ConsumerState {
    mailbox: Weak<Mailbox>,
    pub(crate) queues: Arc<[QueueName]>,
    unsettled_max: usize,
    /// By receipt, which names one handing-over: an old one never settles a later delivery of the message.
    held: HashMap<Receipt, Held>,
    /// Index of the queue that comes first in the next take, so that a full queue doesn't starve the others.
    pub(crate) first: usize,
    /// Its file was deleted or replaced, and with it all that it held.
    pub(crate) is_forgotten: bool,
}

impl ConsumerState {
    /// How much to take for it now.
    pub(crate) fn wanted(&self) -> Option<Room> {
        let wanted = self.mailbox.upgrade()?.wanted()?;
        let messages = wanted.messages.min(self.unsettled_max.saturating_sub(self.held.len()));
        (messages > 0).then_some(Room { messages, ..wanted })
    }

    pub(crate) fn held(&self, receipt: Receipt) -> Option<Held> {
        self.held.get(&receipt).copied()
    }

    pub(crate) fn receipts(&self) -> impl Iterator<Item = (Receipt, Held)> {
        self.held.iter().map(|(receipt, held)| (*receipt, *held))
    }

    /// Notes that these are held.
    pub(crate) fn hold(&mut self, taken: impl Iterator<Item = (Receipt, Held)>) {
        self.held.extend(taken);
    }

    /// Notes that these are not held any more.
    pub(crate) fn release(&mut self, receipts: impl Iterator<Item = Receipt>) {
        for receipt in receipts {
            self.held.remove(&receipt);
        }
    }

    fn fail(&self, why: Error) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.fail(why);
        }
    }
}

impl Drop for ConsumerState {
    fn drop(&mut self) {
        // Closed, or the thread ended: a waiting call must learn of it.
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.close();
        }
    }
}

/// All consumers of this process on one file, by session.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    by_owner: HashMap<i64, ConsumerState>,
    /// One was added since the last look for the dead.
    pub(crate) joined: bool,
}

impl Consumers {
    pub(crate) fn add(
        &mut self,
        owner: i64,
        mailbox: &Arc<Mailbox>,
        queues: Arc<[QueueName]>,
        unsettled_max: usize,
    ) {
        let mailbox = Arc::downgrade(mailbox);
        let held = HashMap::new();
        let state = ConsumerState { mailbox, queues, unsettled_max, held, first: 0, is_forgotten: false };
        self.by_owner.insert(owner, state);
        self.joined = true;
    }

    pub(crate) fn remove(&mut self, owner: i64) {
        self.by_owner.remove(&owner);
    }

    pub(crate) fn get(&self, owner: i64) -> Option<&ConsumerState> {
        self.by_owner.get(&owner)
    }

    pub(crate) fn get_mut(&mut self, owner: i64) -> Option<&mut ConsumerState> {
        self.by_owner.get_mut(&owner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_owner.is_empty()
    }

    /// Forgets consumers that were dropped: they are dead, as after a crash.
    pub(crate) fn sweep(&mut self) {
        self.by_owner.retain(|_, state| state.mailbox.strong_count() > 0);
    }

    /// Consumers that wait, and for how much.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (i64, Room, &ConsumerState)> {
        self.by_owner.iter().filter_map(|(owner, state)| Some((*owner, state.wanted()?, state)))
    }

    pub(crate) fn deliver(&mut self, owner: i64, taken: Vec<(Held, Delivery)>) {
        let Some(state) = self.by_owner.get_mut(&owner) else { return };
        state.hold(taken.iter().map(|(held, delivery)| (delivery.receipt, *held)));
        state.first = state.first.wrapping_add(1);
        if let Some(mailbox) = state.mailbox.upgrade() {
            mailbox.deliver(taken.into_iter().map(|(_, delivery)| delivery).collect());
        }
    }

    /// Tells a consumer's next call what went wrong.
    pub(crate) fn fail(&self, owner: i64, why: Error) {
        if let Some(state) = self.by_owner.get(&owner) {
            state.fail(why);
        }
    }

    /// Notes that the file is gone, with all sessions in it.
    pub(crate) fn forget(&mut self, why: impl Fn() -> Error) {
        for state in self.by_owner.values_mut().filter(|state| !state.is_forgotten) {
            state.is_forgotten = true;
            state.held.clear();
            state.fail(why());
        }
    }
}
