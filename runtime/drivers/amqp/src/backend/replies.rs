//! The sender's half: what has come back so far, and who waits for more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, OnceLock, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rwork_backend::Error;
use rwork_protocol::{Record, TaskId};
use tokio::sync::{OnceCell, watch};
use tokio_util::task::AbortOnDropHandle;

use super::keeper;
use crate::handle::Inner;

/// Results that nobody asks for are forgotten, the oldest first. Celery's client keeps 1000; this many small ones take a
/// few megabytes.
const RECORDS_MAX: usize = 10_000;

/// Results that come back to this process.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    table: std::sync::Arc<Table>,
    /// Our queue's name, once it was asked for.
    name: OnceLock<String>,
    /// The task that reads it.
    keeper: OnceCell<AbortOnDropHandle<()>>,
}

impl Replies {
    /// The queue to which results for this process go. Consumed from now on.
    ///
    /// # Cancel safety
    /// Cancel safe: whoever asks next begins anew.
    pub(super) async fn queue(&self, inner: &Inner) -> Result<&str, Error> {
        let name = self.name.get_or_init(|| uuid::Uuid::new_v4().to_string());
        self.keeper
            .get_or_try_init(|| keeper::start(inner, name, std::sync::Arc::clone(&self.table)))
            .await?;
        Ok(name)
    }

    /// Whether anything can come.
    pub(super) fn is_open(&self) -> bool {
        self.keeper.initialized()
    }

    pub(super) fn get(&self, id: &TaskId) -> Option<Record> {
        let entries = self.table.locked();
        entries.slots.get(id).and_then(|slot| slot.borrow().clone())
    }

    pub(super) fn forget(&self, id: &TaskId) -> bool {
        let slot = self.table.locked().slots.remove(id);
        slot.is_some_and(|slot| slot.borrow().is_some())
    }

    /// What stands there, then each change, until a ready state.
    pub(super) fn watch(&self, id: &TaskId) -> BoxStream<'static, Result<Record, Error>> {
        let mut slot = self.table.locked().slot(id).subscribe();
        slot.mark_changed();
        stream::unfold(Some(slot), async |slot| {
            let mut slot = slot?;
            loop {
                slot.changed().await.ok()?;
                let record = slot.borrow_and_update().clone();
                if let Some(record) = record {
                    let is_last = record.status.is_ready();
                    return Some((Ok(record), (!is_last).then_some(slot)));
                }
            }
        })
        .fuse()
        .boxed()
    }
}

/// Records by task.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Held for one move.
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    slots: HashMap<TaskId, watch::Sender<Option<Record>>>,
    /// In the order in which they were first heard of; some may be gone.
    order: VecDeque<TaskId>,
}

impl Table {
    /// A record came.
    pub(super) fn hear(&self, record: Record) {
        let mut entries = self.locked();
        entries.slot(&record.task_id).send_if_modified(|stands| {
            // A success is final, whatever a worker that lost its connection says later.
            let is_final =
                stands.as_ref().is_some_and(|record| record.status == rwork_protocol::State::Success);
            if is_final {
                return false;
            }
            *stands = Some(record);
            true
        });
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn slot(&mut self, id: &TaskId) -> &watch::Sender<Option<Record>> {
        if !self.slots.contains_key(id) {
            self.make_room();
            self.order.push_back(id.clone());
        }
        self.slots.entry(id.clone()).or_insert_with(|| watch::Sender::new(None))
    }

    /// Forgets the oldest that nobody waits for.
    fn make_room(&mut self) {
        for _ in 0..self.order.len() {
            if self.order.len() < RECORDS_MAX {
                return;
            }
            let Some(oldest) = self.order.pop_front() else { return };
            match self.slots.get(&oldest) {
                Some(slot) if slot.receiver_count() > 0 => self.order.push_back(oldest),
                _ => drop(self.slots.remove(&oldest)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use rwork_protocol::State;

    use super::*;

    fn record(id: &TaskId, status: State) -> Record {
        Record::new(id.clone(), status, &b"null"[..])
    }

    fn states(records: &mut BoxStream<'static, Result<Record, Error>>) -> Vec<State> {
        std::iter::from_fn(|| records.next().now_or_never().flatten())
            .map(|record| record.unwrap().status)
            .collect()
    }

    #[test]
    fn a_watch_sees_what_stands_and_what_comes_until_the_end() {
        let (replies, id) = (Replies::default(), TaskId::generate());
        let mut early = replies.watch(&id);
        assert_eq!(states(&mut early), []);
        replies.table.hear(record(&id, State::Started));
        let mut late = replies.watch(&id);
        assert_eq!(states(&mut early), [State::Started]);
        assert_eq!(states(&mut late), [State::Started]);
        replies.table.hear(record(&id, State::Success));
        replies.table.hear(record(&id, State::Failure));
        assert_eq!(states(&mut early), [State::Success]);
        assert!(matches!(early.next().now_or_never(), Some(None)), "it has ended");
        assert_eq!(replies.get(&id).unwrap().status, State::Success);
        assert!(replies.forget(&id));
        assert!(!replies.forget(&id) && replies.get(&id).is_none());
    }

    #[test]
    fn a_retried_task_is_watched_to_its_end() {
        let (replies, id) = (Replies::default(), TaskId::generate());
        let mut watched = replies.watch(&id);
        for state in [State::Retry, State::Started, State::Failure] {
            replies.table.hear(record(&id, state.clone()));
            assert_eq!(states(&mut watched), [state]);
        }
    }

    #[test]
    fn the_oldest_that_nobody_waits_for_are_forgotten() {
        let replies = Replies::default();
        let ids: Vec<TaskId> = (0..RECORDS_MAX + 2).map(|_| TaskId::generate()).collect();
        let mut waited_for = replies.watch(&ids[0]);
        for id in &ids[1..] {
            replies.table.hear(record(id, State::Success));
        }
        assert_eq!(replies.table.locked().slots.len(), RECORDS_MAX);
        assert!(replies.get(&ids[1]).is_none() && replies.get(&ids[2]).is_none());
        replies.table.hear(record(&ids[0], State::Success));
        assert_eq!(states(&mut waited_for), [State::Success]);
    }
}
