//! Who watches which channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::backend::slot::Slot;

/// Channels and their watchers.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Held for a few moves by the connection's task, the keeper, and whoever begins or ends a watch.
    state: Mutex<State>,
    /// Rings when a channel has lost its last watcher.
    pub(super) deserted: Notify,
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<String, Vec<Arc<Slot>>>,
    /// Channels that lost their last watcher and are still subscribed; some may have got another one since.
    deserted: Vec<String>,
}

/// One watcher's place; dropping it leaves.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) channel: String,
    pub(super) slot: Arc<Slot>,
    table: Arc<Table>,
}

impl Table {
    pub(super) fn sit(self: &Arc<Self>, channel: String) -> Seat {
        let slot = Arc::new(Slot::default());
        self.with(|State { channels, .. }| {
            channels.entry(channel.clone()).or_default().push(Arc::clone(&slot))
        });
        Seat { channel, slot, table: Arc::clone(self) }
    }

    /// Something was published.
    pub(super) fn hear(&self, channel: &str, record: Bytes) {
        self.with(|State { channels, .. }| {
            for slot in channels.get(channel).into_iter().flatten() {
                slot.hear(&record);
            }
        });
    }

    /// Every channel that is watched, its watchers listening anew.
    pub(super) fn listen(&self) -> Vec<String> {
        self.with(|State { channels, .. }| {
            channels.values().flatten().for_each(|slot| slot.listen());
            channels.keys().cloned().collect()
        })
    }

    /// Something was read after subscribing.
    pub(super) fn read(&self, channel: &str, record: Bytes) {
        self.with(|State { channels, .. }| {
            for slot in channels.get(channel).into_iter().flatten() {
                slot.read(&record);
            }
        });
    }

    /// Takes the channels out that nobody watches.
    pub(super) fn take_deserted(&self) -> Vec<String> {
        self.with(|State { channels, deserted }| {
            let mut deserted = std::mem::take(deserted);
            deserted.retain(|channel| {
                let is_deserted = channels.get(channel).is_some_and(Vec::is_empty);
                is_deserted && channels.remove(channel).is_some()
            });
            deserted
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.with(|State { channels, .. }| channels.is_empty())
    }

    /// Ends every watch.
    pub(super) fn end(&self) {
        self.with(|State { channels, .. }| channels.values().flatten().for_each(|slot| slot.end()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let is_last = self.table.with(|State { channels, deserted }| {
            let Some(slots) = channels.get_mut(&self.channel) else { return false };
            slots.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
            if slots.is_empty() {
                deserted.push(self.channel.clone());
            }
            slots.is_empty()
        });
        if is_last {
            self.table.deserted.notify_one();
        }
    }
}
