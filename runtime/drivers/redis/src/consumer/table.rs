//! What a consumer holds: receipts, and what is needed to give back.

use std::collections::HashMap;

use bytes::Bytes;

/// One message that is held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its name in `unacked`.
    pub(crate) tag: Bytes,
    /// Place of its queue among the consumer's.
    pub(crate) queue: usize,
    pub(crate) step: u8,
    pub(crate) envelope: Bytes,
    pub(crate) delivery_count: u32,
}

/// By receipt, never by tag: a message that came back by a peer has the same tag again.
#[derive(Debug, Default)]
pub(crate) struct Table {
    held: HashMap<u64, Held>,
    by_tag: HashMap<Bytes, u64>,
}

impl Table {
    /// A tag that is here already was restored by a peer meanwhile: the older receipt is worth nothing any more.
    pub(crate) fn insert(&mut self, receipt: u64, held: Held) {
        if let Some(older) = self.by_tag.insert(held.tag.clone(), receipt) {
            self.held.remove(&older);
        }
        self.held.insert(receipt, held);
    }

    pub(crate) fn get(&self, receipt: u64) -> Option<&Held> {
        self.held.get(&receipt)
    }

    pub(crate) fn remove(&mut self, receipt: u64) {
        if let Some(held) = self.held.remove(&receipt)
            && self.by_tag.get(&held.tag) == Some(&receipt)
        {
            self.by_tag.remove(&held.tag);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// All receipts, the oldest first.
    pub(crate) fn receipts(&self) -> Vec<u64> {
        let mut receipts: Vec<u64> = self.held.keys().copied().collect();
        receipts.sort_unstable();
        receipts
    }
}
