//! What a consumer holds, by receipt.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use lapin::BasicProperties;
use rwork_broker::Delivery;
use rwork_protocol::Timestamp;
use tokio::time::Instant;

use super::basket::Basket;
use super::lane::Tag;

/// One delivery, with all that is needed to publish its message again.
#[derive(Debug)]
pub(crate) struct Held {
    /// Place of its queue among the consumer's.
    pub(crate) lane: usize,
    pub(crate) place: Place,
    pub(crate) stage: Stage,
    /// Without marks.
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
    /// Deliveries with this one.
    pub(crate) delivery_count: u32,
    /// When it came to where it is: the server's patience counts from then.
    pub(crate) at: Instant,
}

/// Where the server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its queue, unsettled.
    Lane(Tag),
    /// In this consumer's shelter, by delivery tag there.
    Shelter(u64),
}

/// How far it has come with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Whoever received it has it.
    Handed,
    /// Its time has not come.
    Hidden,
    /// To be handed out to the next who asks.
    Ready,
    /// On its way between places, or out of here.
    Busy,
}

/// Everything of one consumer.
#[derive(Debug, Default)]
pub(crate) struct Table {
    held: HashMap<u64, Held>,
    /// The receipt given last.
    last: u64,
    handed: usize,
    /// To be handed out when their time has come.
    hidden: BTreeMap<(Timestamp, u64), Delivery>,
    /// To be handed out now.
    ready: VecDeque<Delivery>,
    /// Copies on their way to the shelter, with the delivery to be handed out once they are there.
    moving: HashMap<u64, Option<Delivery>>,
}

impl Table {
    pub(crate) fn next_receipt(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn insert(&mut self, receipt: u64, held: Held) {
        self.handed += usize::from(held.stage == Stage::Handed);
        self.held.insert(receipt, held);
    }

    pub(crate) fn get(&self, receipt: u64) -> Option<&Held> {
        self.held.get(&receipt)
    }

    pub(crate) fn remove(&mut self, receipt: u64) -> Option<Held> {
        let held = self.held.remove(&receipt)?;
        self.handed -= usize::from(held.stage == Stage::Handed);
        self.moving.remove(&receipt);
        Some(held)
    }

    /// How many whoever receives has.
    pub(crate) fn handed(&self) -> usize {
        self.handed
    }

    /// How many of this queue are at this stage.
    pub(crate) fn count(&self, lane: usize, stage: Stage) -> u64 {
        self.held.values().filter(|held| held.lane == lane && held.stage == stage).count() as u64
    }

    /// Held back to be handed out next, before everything else, oldest first.
    pub(crate) fn keep_ready(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries.into_iter().rev() {
            self.ready.push_front(delivery);
        }
    }

    /// Takes away those of these that nobody was handed meanwhile.
    pub(crate) fn take_unwanted(&mut self, receipts: &[u64]) -> Vec<Held> {
        let held = &self.held;
        let is_ready = |receipt: &&u64| held.get(receipt).is_some_and(|held| held.stage == Stage::Ready);
        let unwanted: Vec<u64> = receipts.iter().filter(is_ready).copied().collect();
        unwanted.into_iter().filter_map(|receipt| self.remove(receipt)).collect()
    }

    pub(crate) fn hide(&mut self, receipt: u64, until: Timestamp, delivery: Delivery) {
        self.hidden.insert((until, receipt), delivery);
    }

    /// Takes away what nobody has been handed yet of this queue.
    pub(crate) fn take_untaken(&mut self, lane: usize) -> Vec<Held> {
        let receipts =
            self.find(|held| held.lane == lane && matches!(held.stage, Stage::Hidden | Stage::Ready));
        receipts.into_iter().filter_map(|receipt| self.remove(receipt)).collect()
    }

    /// When the next one's time comes.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.hidden.first_key_value().map(|((due, _), _)| *due)
    }

    /// Puts into the basket what need not be waited for.
    pub(crate) fn take_ready(&mut self, basket: &mut Basket, now: Timestamp) {
        while let Some(entry) = self.hidden.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, receipt), delivery) = entry.remove_entry();
            if self.held.contains_key(&receipt) {
                self.ready.push_back(delivery);
            }
        }
        while !basket.is_full()
            && let Some(delivery) = self.ready.pop_front()
        {
            // Its channel may have died since.
            if let Some(held) = self.held.get_mut(&delivery.receipt.0) {
                held.stage = Stage::Handed;
                self.handed += 1;
                basket.push(delivery);
            }
        }
    }

    /// A copy is on its way; `delivery` is handed out once it is there.
    pub(crate) fn begin_move(&mut self, receipt: u64, delivery: Option<Delivery>) {
        self.moving.insert(receipt, delivery);
    }

    pub(crate) fn is_any_moving(&self) -> bool {
        !self.moving.is_empty()
    }

    pub(crate) fn is_moving(&self, receipt: u64) -> bool {
        self.moving.contains_key(&receipt)
    }

    /// Whether nobody has it before its copy is there.
    pub(crate) fn is_awaiting_move(&self, receipt: u64) -> bool {
        self.moving.get(&receipt).is_some_and(Option::is_some)
    }

    /// It did not get there.
    pub(crate) fn abandon_move(&mut self, receipt: u64) {
        self.moving.remove(&receipt);
    }

    /// The copy has arrived: the place of the original, which need not be held any more. `None`: nobody waits for it.
    pub(crate) fn end_move(&mut self, receipt: u64, tag: u64) -> Option<(usize, Place)> {
        let delivery = self.moving.remove(&receipt)?;
        let held = self.held.get_mut(&receipt)?;
        let old = std::mem::replace(&mut held.place, Place::Shelter(tag));
        held.at = Instant::now();
        self.ready.extend(delivery);
        Some((held.lane, old))
    }

    /// Receipts for which this holds.
    pub(crate) fn find(&self, wanted: impl Fn(&Held) -> bool) -> Vec<u64> {
        let mut found: Vec<u64> =
            self.held.iter().filter(|(_, held)| wanted(held)).map(|(receipt, _)| *receipt).collect();
        found.sort_unstable();
        found
    }

    /// Nothing is held any more.
    pub(crate) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }
}
