//! What one watcher has not seen yet.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::record::is_surely_ready;

/// The newest unseen record. A slow watcher misses records between, never the last.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Held for one move by either side.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    news: Option<Bytes>,
    /// What was told last, to tell each record once.
    told: Option<Bytes>,
    /// A publication came after the last subscribing: what is read after that is not newer.
    heard: bool,
    ended: bool,
}

impl Slot {
    /// Something was published.
    pub(super) fn hear(&self, record: &Bytes) {
        self.with(|state| {
            state.heard = true;
            state.put(record);
        });
        self.changed.notify_one();
    }

    /// A subscribing begins: nothing that was published before counts as heard.
    pub(super) fn listen(&self) {
        self.with(|state| state.heard = false);
    }

    /// Something was read after subscribing.
    pub(super) fn read(&self, record: &Bytes) {
        self.with(|state| {
            if !state.heard {
                state.put(record);
            }
        });
        self.changed.notify_one();
    }

    /// Nobody will tell it anything any more.
    pub(super) fn end(&self) {
        self.with(|state| state.ended = true);
        self.changed.notify_one();
    }

    /// The next record; `None` at the end.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            if let Some(news) = self.with(State::take) {
                return news;
            }
            // `notify_one` keeps one permit, so that a change between the look and this wait is not missed.
            self.changed.notified().await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn put(&mut self, record: &Bytes) {
        let hides_the_last = self.news.as_deref().is_some_and(is_surely_ready) && !is_surely_ready(record);
        if !hides_the_last && self.told.as_ref() != Some(record) {
            self.news = Some(record.clone());
        }
    }

    /// `None`: wait. `Some(None)`: the end.
    fn take(&mut self) -> Option<Option<Bytes>> {
        match self.news.take() {
            Some(news) => {
                self.told = Some(news.clone());
                Some(Some(news))
            }
            None => self.ended.then_some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const STARTED: Bytes = Bytes::from_static(b"{\"status\": \"STARTED\", \"task_id\": \"i\"}");
    const SUCCESS: Bytes = Bytes::from_static(b"{\"status\": \"SUCCESS\", \"task_id\": \"i\"}");

    #[test]
    fn what_was_read_never_hides_what_was_heard_meanwhile() {
        let slot = Slot::default();
        slot.listen();
        slot.hear(&SUCCESS);
        slot.read(&STARTED);
        assert_eq!(slot.next().now_or_never(), Some(Some(SUCCESS)));
        assert_eq!(slot.next().now_or_never(), None);
    }

    #[test]
    fn a_ready_record_is_not_hidden_by_a_late_one() {
        let slot = Slot::default();
        slot.hear(&SUCCESS);
        slot.hear(&STARTED);
        assert_eq!(slot.next().now_or_never(), Some(Some(SUCCESS)));
    }

    #[test]
    fn reading_again_tells_only_what_is_new() {
        let slot = Slot::default();
        slot.read(&STARTED);
        assert_eq!(slot.next().now_or_never(), Some(Some(STARTED)));
        slot.listen();
        slot.read(&STARTED);
        assert_eq!(slot.next().now_or_never(), None);
        slot.read(&SUCCESS);
        assert_eq!(slot.next().now_or_never(), Some(Some(SUCCESS)));
        slot.end();
        assert_eq!(slot.next().now_or_never(), Some(None));
    }
}
