//! Deliveries that a consumer holds: for each receipt its tag in `unacked`, and what is needed to give it back.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use rwork_broker::{Delivery, Receipt};

use crate::sources::Sources;
use rwork_protocol::envelope::{self, Malformed};

/// One message that is held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Number of its taking, as in its tag.
    pub(crate) taking: u64,
    /// Index of its queue among the consumer's.
    pub(crate) queue: usize,
    pub(crate) step: u8,
    pub(crate) envelope: Bytes,
    pub(crate) delivery_count: u32,
    /// Its start was written down.
    pub(crate) is_started: bool,
    /// The caller has it.
    is_handed: bool,
}

impl Held {
    /// Number of the next delivery, should this one have begun: written starts, plus one.
    pub(crate) fn next_count(&self) -> u32 {
        self.delivery_count.saturating_add(u32::from(self.is_started))
    }
}

/// A message that was taken: an element of a list, or an entry of `unacked`.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) taking: u64,
    pub(crate) queue: usize,
    pub(crate) step: u8,
    pub(crate) envelope: Bytes,
}

/// All that is held, by receipt. Receipts are ours alone: a store that lost data may hand over one taking twice.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    held: HashMap<Receipt, Held>,
    last_receipt: u64,
    /// The largest number of a taking that was seen.
    last_taking: u64,
    /// Line that the deliveries were compared with last: what an earlier line took is known from that comparison.
    pub(crate) line: u64,
}

impl Deliveries {
    pub(crate) fn get(&self, receipt: Receipt) -> Option<&Held> {
        self.held.get(&receipt)
    }

    pub(crate) fn remove(&mut self, receipt: Receipt) {
        self.held.remove(&receipt);
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn last_taking(&self) -> u64 {
        self.last_taking
    }

    /// Notes that the caller has it; false when it is not held any more.
    pub(crate) fn hand_over(&mut self, receipt: Receipt) -> bool {
        self.held.get_mut(&receipt).map(|held| held.is_handed = true).is_some()
    }

    /// Notes that its start was written down.
    pub(crate) fn start(&mut self, receipt: Receipt) {
        if let Some(held) = self.held.get_mut(&receipt) {
            held.is_started = true;
        }
    }

    /// All receipts, the oldest first.
    pub(crate) fn receipts(&self) -> Vec<Receipt> {
        let mut receipts: Vec<Receipt> = self.held.keys().copied().collect();
        receipts.sort_unstable();
        receipts
    }

    /// Holds a message. What can't be read is held as well, until it is a dead letter.
    pub(crate) fn accept(
        &mut self,
        taken: Taken,
        sources: &Sources,
    ) -> Result<Option<Delivery>, (Receipt, Malformed)> {
        self.last_receipt += 1;
        let receipt = Receipt(self.last_receipt);
        let Taken { taking, queue, step, envelope } = taken;
        self.last_taking = self.last_taking.max(taking);
        let read = envelope::read(&envelope);
        let delivery_count = read.as_ref().map_or(1, |read| read.delivery_count);
        let (is_started, is_handed) = (false, false);
        self.held
            .insert(receipt, Held { taking, queue, step, envelope, delivery_count, is_started, is_handed });
        let read = read.map_err(|why| (receipt, why))?;
        Ok(sources.queues.get(queue).map(|source| Delivery {
            message: read.message,
            queue: source.name.clone(),
            redelivered: read.redelivered,
            delivery_count,
            receipt,
        }))
    }

    pub(crate) fn takings(&self) -> HashSet<u64> {
        self.held.values().map(|held| held.taking).collect()
    }

    /// Compares with the takings that the store says are held: forgets the others, and returns those of them that the caller
    /// has; and the takings that are not known here.
    pub(crate) fn compare(&mut self, takings: &HashSet<u64>) -> (Vec<Receipt>, Vec<u64>) {
        let known = self.takings();
        let lost: Vec<(Receipt, bool)> = self
            .held
            .iter()
            .filter(|(_, held)| !takings.contains(&held.taking))
            .map(|(receipt, held)| (*receipt, held.is_handed))
            .collect();
        lost.iter().for_each(|(receipt, _)| self.remove(*receipt));
        let mut gone: Vec<Receipt> =
            lost.into_iter().filter(|(_, is_handed)| *is_handed).map(|(receipt, _)| receipt).collect();
        gone.sort_unstable();
        let mut fresh: Vec<u64> = takings.difference(&known).copied().collect();
        fresh.sort_unstable();
        (gone, fresh)
    }
}
