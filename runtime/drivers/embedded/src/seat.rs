//! A consumer's place with the thread that writes: what it waits for, what it was given, what it holds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rwork_broker::{Delivery, Error, Receipt};
use rwork_protocol::QueueName;
use tokio::sync::Notify;

/// What a consumer and the writing thread share.
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
    /// How many the waiting call wants; 0: nobody waits.
    wanted: usize,
    /// Taken and not yet returned: a call may be cancelled after its messages were taken.
    stash: VecDeque<Delivery>,
    /// Nothing will come any more.
    ended: bool,
    /// What ended the consumer, until a call was told.
    failure: Option<Error>,
}

impl Mailbox {
    pub(crate) fn new(name: String) -> Self {
        Self { name, mail: Mutex::default(), arrived: Notify::new() }
    }

    /// Up to `max` deliveries that are here already, or an error; otherwise asks for them.
    pub(crate) fn take_or_ask(&self, max: usize) -> Option<Result<Vec<Delivery>, Error>> {
        let mut mail = self.lock();
        if mail.ended {
            let closed = || Error::Closed { name: self.name.clone() };
            return Some(Err(mail.failure.take().unwrap_or_else(closed)));
        }
        if mail.stash.is_empty() {
            mail.wanted = max;
            return None;
        }
        let count = mail.stash.len().min(max);
        Some(Ok(mail.stash.drain(..count).collect()))
    }

    /// Takes the wish back.
    pub(crate) fn ask_no_more(&self) {
        self.lock().wanted = 0;
    }

    fn wanted(&self) -> usize {
        self.lock().wanted
    }

    fn deliver(&self, deliveries: Vec<Delivery>) {
        let mut mail = self.lock();
        mail.stash.extend(deliveries);
        mail.wanted = 0;
        drop(mail);
        self.arrived.notify_one();
    }

    /// Ends the consumer: what was not returned yet is not ours any more, and the next call is told why. The first
    /// reason stands.
    fn end(&self, why: Option<Error>) {
        let mut mail = self.lock();
        if !mail.ended {
            *mail = Mail { ended: true, failure: why, ..Mail::default() };
        }
        drop(mail);
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consumer as the writing thread knows it.
#[derive(Debug)]
pub(crate) struct Seat {
    mailbox: Weak<Mailbox>,
    pub(crate) queues: Arc<[QueueName]>,
    unsettled_max: usize,
    /// Receipt → `msg.seq`. A receipt names one handing-over: an old one never settles a later delivery of the message.
    held: HashMap<u64, i64>,
    /// Which queue comes first in the next lease, so that a full queue doesn't starve the others.
    pub(crate) first: usize,
}

impl Seat {
    /// How many messages to take for it now.
    pub(crate) fn wanted(&self) -> usize {
        let room = self.unsettled_max.saturating_sub(self.held.len());
        self.mailbox.upgrade().map_or(0, |mailbox| mailbox.wanted()).min(room)
    }

    pub(crate) fn sequence(&self, receipt: &Receipt) -> Option<i64> {
        match receipt {
            Receipt::Number(number) => self.held.get(number).copied(),
            Receipt::Tag(_) => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Closed, or the thread ended: a waiting call must learn of it.
        if let Some(mailbox) = self.mailbox.upgrade() {
            mailbox.end(None);
        }
    }
}

/// All consumers of this process on one file, by session.
#[derive(Debug, Default)]
pub(crate) struct Seats(HashMap<i64, Seat>);

impl Seats {
    pub(crate) fn add(
        &mut self,
        owner: i64,
        mailbox: &Arc<Mailbox>,
        queues: Arc<[QueueName]>,
        unsettled_max: usize,
    ) {
        let mailbox = Arc::downgrade(mailbox);
        let seat = Seat { mailbox, queues, unsettled_max, held: HashMap::new(), first: 0 };
        self.0.insert(owner, seat);
    }

    pub(crate) fn remove(&mut self, owner: i64) {
        self.0.remove(&owner);
    }

    pub(crate) fn get(&self, owner: i64) -> Option<&Seat> {
        self.0.get(&owner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets consumers that were dropped; their leases run out by themselves.
    pub(crate) fn sweep(&mut self) {
        self.0.retain(|_, seat| seat.mailbox.strong_count() > 0);
    }

    /// Who waits, and for how many.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (i64, usize, &Seat)> {
        self.0.iter().map(|(owner, seat)| (*owner, seat.wanted(), seat)).filter(|(_, wanted, _)| *wanted > 0)
    }

    pub(crate) fn deliver(&mut self, owner: i64, leased: Vec<(i64, Delivery)>) {
        let Some(seat) = self.0.get_mut(&owner) else { return };
        let mut deliveries = Vec::with_capacity(leased.len());
        for (sequence, delivery) in leased {
            if let Receipt::Number(number) = delivery.receipt {
                seat.held.insert(number, sequence);
            }
            deliveries.push(delivery);
        }
        seat.first = seat.first.wrapping_add(1);
        if let Some(mailbox) = seat.mailbox.upgrade() {
            mailbox.deliver(deliveries);
        }
    }

    pub(crate) fn settled<'a>(&mut self, owner: i64, receipts: impl Iterator<Item = &'a Receipt>) {
        let Some(seat) = self.0.get_mut(&owner) else { return };
        for receipt in receipts {
            if let Receipt::Number(number) = receipt {
                seat.held.remove(number);
            }
        }
    }

    /// Ends a consumer with an error for its next call.
    pub(crate) fn fail(&mut self, owner: i64, failure: Error) {
        if let Some(seat) = self.0.remove(&owner)
            && let Some(mailbox) = seat.mailbox.upgrade()
        {
            mailbox.end(Some(failure));
        }
    }
}
