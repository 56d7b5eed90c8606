//! Watchers by channel, and the newest record of each: a slow watcher misses records between, never the last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rwork_protocol::stored::is_surely_ready;
use tokio::sync::{Notify, watch};

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
    channels: HashMap<String, Vec<Watcher>>,
    /// Channels that lost their last watcher and are still subscribed; some may have got another one since.
    deserted: Vec<String>,
}

#[derive(Debug)]
struct Watcher {
    newest: watch::Sender<Option<Bytes>>,
    /// A publication came after the last subscribing: what is read after that is not newer.
    heard: bool,
}

/// One watcher's place; dropping it leaves.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) channel: String,
    newest: watch::Receiver<Option<Bytes>>,
    table: Arc<Table>,
}

impl Table {
    pub(super) fn sit(self: &Arc<Self>, channel: String) -> Seat {
        let (sender, newest) = watch::channel(None);
        let watcher = Watcher { newest: sender, heard: false };
        self.with(|State { channels, .. }| channels.entry(channel.clone()).or_default().push(watcher));
        Seat { channel, newest, table: Arc::clone(self) }
    }

    /// Something was published.
    pub(super) fn hear(&self, channel: &str, record: &Bytes) {
        self.each_of(channel, |watcher| {
            watcher.heard = true;
            watcher.tell(record);
        });
    }

    /// Something was read after subscribing.
    pub(super) fn read(&self, channel: &str, record: &Bytes) {
        self.each_of(channel, |watcher| {
            if !watcher.heard {
                watcher.tell(record);
            }
        });
    }

    fn each_of(&self, channel: &str, act: impl FnMut(&mut Watcher)) {
        self.with(|State { channels, .. }| channels.get_mut(channel).into_iter().flatten().for_each(act));
    }

    /// Every channel that is watched, its watchers listening anew: nothing that was published before counts as heard.
    pub(super) fn listen(&self) -> Vec<String> {
        self.with(|State { channels, .. }| {
            channels.values_mut().flatten().for_each(|watcher| watcher.heard = false);
            channels.keys().cloned().collect()
        })
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
        self.with(|State { channels, .. }| channels.values_mut().for_each(Vec::clear));
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watcher {
    /// Tells what is new; a ready record is not hidden by one that came late.
    fn tell(&self, record: &Bytes) {
        self.newest.send_if_modified(|newest| {
            let is_ready = newest.as_deref().is_some_and(is_surely_ready);
            let is_news = newest.as_ref() != Some(record) && (!is_ready || is_surely_ready(record));
            if is_news {
                *newest = Some(record.clone());
            }
            is_news
        });
    }
}

impl Seat {
    /// The next record; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.newest.changed().await.ok()?;
        self.newest.borrow_and_update().clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let is_last = self.table.with(|State { channels, deserted }| {
            let Some(watchers) = channels.get_mut(&self.channel) else { return false };
            watchers.retain(|watcher| !watcher.newest.subscribe().same_channel(&self.newest));
            if watchers.is_empty() {
                deserted.push(self.channel.clone());
            }
            watchers.is_empty()
        });
        if is_last {
            self.table.deserted.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const STARTED: Bytes = Bytes::from_static(b"{\"status\": \"STARTED\", \"task_id\": \"i\"}");
    const SUCCESS: Bytes = Bytes::from_static(b"{\"status\": \"SUCCESS\", \"task_id\": \"i\"}");

    fn next(seat: &mut Seat) -> Option<Option<Bytes>> {
        seat.next().now_or_never()
    }

    #[test]
    fn what_was_read_never_hides_what_was_heard_meanwhile() {
        let table = Arc::new(Table::default());
        let mut seat = table.sit("c".to_owned());
        table.listen();
        table.hear("c", &STARTED);
        table.read("c", &SUCCESS);
        assert_eq!(next(&mut seat), Some(Some(STARTED)));
        assert_eq!(next(&mut seat), None);
    }

    #[test]
    fn a_ready_record_is_not_hidden_by_a_late_one() {
        let table = Arc::new(Table::default());
        let mut seat = table.sit("c".to_owned());
        table.hear("c", &SUCCESS);
        table.hear("c", &STARTED);
        assert_eq!(next(&mut seat), Some(Some(SUCCESS)));
    }

    #[test]
    fn reading_again_tells_only_what_is_new() {
        let table = Arc::new(Table::default());
        let mut seat = table.sit("c".to_owned());
        table.read("c", &STARTED);
        assert_eq!(next(&mut seat), Some(Some(STARTED)));
        table.listen();
        table.read("c", &STARTED);
        assert_eq!(next(&mut seat), None);
        table.read("c", &SUCCESS);
        assert_eq!(next(&mut seat), Some(Some(SUCCESS)));
        table.end();
        assert_eq!(next(&mut seat), Some(None));
    }

    #[test]
    fn only_the_last_to_leave_deserts_a_channel() {
        let table = Arc::new(Table::default());
        let (one, other) = (table.sit("c".to_owned()), table.sit("c".to_owned()));
        drop(one);
        assert!(table.take_deserted().is_empty());
        drop(other);
        assert_eq!(table.take_deserted(), ["c"]);
        assert!(table.is_empty());
    }
}
