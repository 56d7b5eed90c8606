//! Messages that are held back: in `rwork.parked.QUEUE` until the score in `rwork.delayed.QUEUE` has passed.

use rwork_protocol::Timestamp;
use uuid::Uuid;

use crate::keys::BrokerKeys;

/// Delayed messages made ready by one call: a millisecond of the server's time.
pub(crate) const DUE_MAX: usize = 500;

/// A message to be held back.
#[derive(Debug)]
pub(crate) struct Parking {
    pub(crate) delayed: String,
    pub(crate) parked: String,
    /// In the order of making, so that messages due together stay in order.
    pub(crate) id: String,
    /// In milliseconds, from now: the server's clock decides, not ours.
    pub(crate) wait_ms: String,
    /// `3:<envelope>`
    pub(crate) value: Vec<u8>,
}

impl Parking {
    /// Until `until`; `None` when that has passed.
    pub(crate) fn until(
        keys: &BrokerKeys,
        until: Timestamp,
        now: Timestamp,
        queue: &str,
        step: u8,
        envelope: &[u8],
    ) -> Option<Self> {
        let wait_us = until.as_micros().saturating_sub(now.as_micros());
        if wait_us <= 0 {
            return None;
        }
        let mut value = format!("{step}:").into_bytes();
        value.extend_from_slice(envelope);
        Some(Self {
            delayed: keys.delayed(queue),
            parked: keys.parked(queue),
            id: Uuid::now_v7().to_string(),
            wait_ms: format!("{}.{:03}", wait_us / 1000, wait_us % 1000),
            value,
        })
    }
}
