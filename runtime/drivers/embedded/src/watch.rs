//! Waiting for a result: one slot per watch, filled by the reading thread, emptied by the stream.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use rusqlite::{Connection, OptionalExtension, params};
use rwork_backend::Error;
use rwork_protocol::service::RedactedUrl;
use rwork_protocol::{Record, Timestamp};
use tokio::sync::Notify;

use crate::error::{self, Failure};
use crate::row::{self, Key};

/// The newest unseen record. A slow stream misses records between, never the last.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Held for one move by either side.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    news: Option<Result<Record, Error>>,
    ended: bool,
}

impl Slot {
    fn put(&self, news: Option<Result<Record, Error>>, ended: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if news.is_some() {
            state.news = news;
        }
        state.ended |= ended;
        drop(state);
        self.changed.notify_one();
    }

    /// Ends it with an error, unless it has ended.
    fn give_up(&self, why: Error) {
        let ended = self.state.lock().unwrap_or_else(PoisonError::into_inner).ended;
        if !ended {
            self.put(Some(Err(why)), true);
        }
    }

    /// The next news; `None` at the end.
    async fn next(&self) -> Option<Result<Record, Error>> {
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(news) = state.news.take() {
                    return Some(news);
                }
                if state.ended {
                    return None;
                }
            }
            // `notify_one` keeps one permit, so that a change between the look and this wait is not missed.
            self.changed.notified().await;
        }
    }
}

/// A watch as the reading thread knows it.
#[derive(Debug)]
pub(crate) struct Watched {
    key: Key,
    url: RedactedUrl,
    slot: Weak<Slot>,
    /// The bytes that were told last.
    seen: Option<Bytes>,
}

impl Watched {
    /// A watch, and the slot to be made a stream.
    pub(crate) fn new(key: Key, url: RedactedUrl) -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot::default());
        (Self { key, url, slot: Arc::downgrade(&slot), seen: None }, slot)
    }

    /// Tells what is new; false when nothing will be, or nobody listens.
    pub(crate) fn look(&mut self, db: &Connection, now: Timestamp) -> bool {
        let Some(slot) = self.slot.upgrade() else { return false };
        let body = match read(db, &self.key, now) {
            Ok(Some(body)) => body,
            // None yet, or forgotten, or expired: what comes then is news again, even the same.
            Ok(None) => {
                self.seen = None;
                return true;
            }
            Err(error) => {
                let error = Failure::from(error).explain(&self.url, "read a result");
                let lasts = error.is_retryable();
                slot.put(Some(Err(error)), !lasts);
                return lasts;
            }
        };
        if self.seen.as_ref() == Some(&body) {
            return true;
        }
        let record = decode(&body, &self.url);
        let ended = record.as_ref().map_or(true, |record| record.status.is_ready());
        self.seen = Some(body);
        slot.put(Some(record), ended);
        !ended
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Unless all was said the thread has ended: a stream must not wait for ever.
        if let Some(slot) = self.slot.upgrade() {
            slot.give_up(error::closed(&self.url));
        }
    }
}

/// The stream of a slot; dropping it ends the watch.
pub(crate) fn stream(slot: Arc<Slot>) -> BoxStream<'static, Result<Record, Error>> {
    stream::unfold(slot, |slot| async move { slot.next().await.map(|news| (news, slot)) }).boxed()
}

/// Reads an encoded record that has not expired.
pub(crate) fn read(db: &Connection, key: &Key, now: Timestamp) -> rusqlite::Result<Option<Bytes>> {
    db.prepare_cached("SELECT body FROM result WHERE id = ?1 AND (expires IS NULL OR expires > ?2)")?
        .query_row(params![key, now.as_micros()], |found| row::blob(found, 0))
        .optional()
}

pub(crate) fn decode(body: &Bytes, url: &RedactedUrl) -> Result<Record, Error> {
    Record::decode(body).map_err(|error| Error::Act {
        act: format!("decode a result at {url}"),
        retryable: false,
        source: Box::new(error),
    })
}
