//! Messages of a store and where each one waits.

use std::collections::{BTreeMap, BTreeSet};

use rwork_broker::{DeadLetter, DeadLetterId, Publish, Reason};
use rwork_protocol::{Message, QueueName, Timestamp};

/// The number of a message, in the order in which they were accepted.
pub type Serial = u64;

/// A message that is not forgotten yet.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    pub(crate) queue: QueueName,
    /// Its place in the queue.
    place: i64,
    /// Starts that were written down.
    pub(crate) starts: u32,
    pub(crate) redelivered: bool,
}

/// All messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    entries: BTreeMap<Serial, Entry>,
    ready: BTreeMap<QueueName, BTreeSet<(i64, Serial)>>,
    delayed: BTreeSet<(Timestamp, Serial)>,
    dead: BTreeMap<Serial, Reason>,
    /// The last number given, to messages and to places at the end of a queue.
    numbers: u64,
    /// The last place given at the head of a queue.
    head: i64,
}

impl Messages {
    pub(crate) fn get(&self, serial: Serial) -> Option<&Entry> {
        self.entries.get(&serial)
    }

    pub(crate) fn get_mut(&mut self, serial: Serial) -> Option<&mut Entry> {
        self.entries.get_mut(&serial)
    }

    /// Goes on from the numbers of a later state of the same store.
    pub(crate) fn number_after(&mut self, later: &Self) {
        self.numbers = self.numbers.max(later.numbers);
        self.head = self.head.min(later.head);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn end_place(&mut self) -> i64 {
        i64::try_from(self.number()).unwrap_or(i64::MAX)
    }

    pub(crate) fn accept(&mut self, queue: QueueName, publish: &Publish, now: Timestamp) -> Serial {
        let serial = self.number();
        let place = i64::try_from(serial).unwrap_or(i64::MAX);
        let message = publish.message.clone();
        self.entries.insert(serial, Entry { message, queue, place, starts: 0, redelivered: false });
        match publish.not_before {
            Some(until) => self.delay(serial, until, now),
            None => self.make_ready(serial),
        }
        serial
    }

    fn make_ready(&mut self, serial: Serial) {
        if let Some(entry) = self.entries.get(&serial) {
            self.ready.entry(entry.queue.clone()).or_default().insert((entry.place, serial));
        }
    }

    /// Back to the head of its queue.
    pub(crate) fn put_at_head(&mut self, serial: Serial) {
        self.head -= 1;
        let head = self.head;
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = head;
        }
        self.make_ready(serial);
    }

    /// Back to the end of its queue.
    pub(crate) fn put_at_end(&mut self, serial: Serial) {
        let place = self.end_place();
        if let Some(entry) = self.entries.get_mut(&serial) {
            entry.place = place;
        }
        self.make_ready(serial);
    }

    pub(crate) fn delay(&mut self, serial: Serial, until: Timestamp, now: Timestamp) {
        if until > now {
            self.delayed.insert((until, serial));
        } else {
            self.make_ready(serial);
        }
    }

    /// Ends the delays that are over; true when there were any.
    pub(crate) fn wake(&mut self, now: Timestamp) -> bool {
        let later = self.delayed.split_off(&(now, Serial::MAX));
        let due = std::mem::replace(&mut self.delayed, later);
        let woken = !due.is_empty();
        due.into_iter().for_each(|(_, serial)| self.make_ready(serial));
        woken
    }

    /// The next message of these queues.
    pub(crate) fn next(&mut self, queues: &[QueueName]) -> Option<Serial> {
        let first = |queue: &QueueName| self.ready.get(queue).and_then(|ready| ready.first()).copied();
        let (_, serial) = queues.iter().filter_map(first).min()?;
        self.take(serial);
        Some(serial)
    }

    /// Takes this message out of its queue; false when it is not there.
    pub(crate) fn take(&mut self, serial: Serial) -> bool {
        let Some(entry) = self.entries.get(&serial) else { return false };
        let place = (entry.place, serial);
        self.ready.get_mut(&entry.queue).is_some_and(|ready| ready.remove(&place))
    }

    /// Messages that could be delivered now.
    pub(crate) fn ready_in<'a>(&'a self, queue: &QueueName) -> impl Iterator<Item = Serial> + use<'a> {
        self.ready.get(queue).into_iter().flatten().map(|(_, serial)| *serial)
    }

    /// Messages held back.
    pub(crate) fn delayed_in(&self, queue: &QueueName) -> Vec<Serial> {
        let of_queue = |serial: &Serial| self.entries.get(serial).is_some_and(|entry| entry.queue == *queue);
        self.delayed.iter().map(|(_, serial)| *serial).filter(of_queue).collect()
    }

    pub(crate) fn forget(&mut self, serial: Serial) {
        self.take(serial);
        self.delayed.retain(|(_, other)| *other != serial);
        self.dead.remove(&serial);
        self.entries.remove(&serial);
    }

    pub(crate) fn bury(&mut self, serial: Serial, reason: Reason) {
        self.dead.insert(serial, reason);
    }

    /// Puts a dead letter back, as if it had never been taken.
    pub(crate) fn revive(&mut self, serial: Serial) {
        self.dead.remove(&serial);
        if let Some(entry) = self.entries.get_mut(&serial) {
            (entry.starts, entry.redelivered) = (0, false);
        }
        self.put_at_end(serial);
    }

    pub(crate) fn dead_in<'a>(
        &'a self,
        queue: &'a QueueName,
    ) -> impl Iterator<Item = (Serial, DeadLetter)> + 'a {
        self.dead.iter().filter_map(move |(serial, reason)| {
            let entry = self.entries.get(serial).filter(|entry| entry.queue == *queue)?;
            let letter = DeadLetter {
                id: DeadLetterId(serial.to_string()),
                queue: entry.queue.clone(),
                delivery_count: entry.starts + 1,
                message: entry.message.clone(),
                reason: reason.clone(),
            };
            Some((*serial, letter))
        })
    }

    /// Every message that is neither a dead letter nor forgotten.
    pub(crate) fn open(&self) -> impl Iterator<Item = Serial> {
        self.entries.keys().copied().filter(|serial| !self.dead.contains_key(serial))
    }
}
