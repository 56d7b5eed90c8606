//! The model backend: records by task id, a success is final, outages.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rwork_backend::{ResultBackend, Store, Stored};
use rwork_protocol::service::Error;
use rwork_protocol::{Record, State, TaskId};
use tokio::time::Instant;

use super::world::{World, unreachable_error};

/// In a result: this backend will never take it.
const UNSTORABLE: &[u8] = b"unstorable";
/// Beginning of the ids of tasks of which it takes no record at all.
const NEVER: &str = "never-stored";

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) by_id: BTreeMap<TaskId, Record>,
    /// Messages whose own success is stored.
    successes: BTreeSet<u64>,
    /// Every state that a task went through, for what is overwritten.
    pub(super) history: BTreeMap<TaskId, Vec<State>>,
    pub(super) down_until: Option<Instant>,
}

impl Records {
    pub(super) fn succeeded(&self, serial: u64) -> bool {
        self.successes.contains(&serial)
    }

    fn is_down(&self) -> bool {
        self.down_until.is_some_and(|until| Instant::now() < until)
    }

    fn put(&mut self, store: Store) -> Stored {
        let record = store.record;
        let history = self.history.entry(record.task_id.clone()).or_default();
        if history.last() == Some(&State::Success) {
            return Stored::Kept;
        }
        history.push(record.status.clone());
        if record.status == State::Success {
            let from = store.correlation_id.as_deref().and_then(|from| from.split_once('/'));
            self.successes.extend(from.and_then(|(serial, _)| serial.parse::<u64>().ok()));
        }
        self.by_id.insert(record.task_id.clone(), record);
        Stored::Written
    }
}

/// One worker's connection to the model backend.
#[derive(Clone, Debug)]
pub(super) struct ModelBackend {
    pub(super) world: World,
    pub(super) worker: u64,
}

#[async_trait]
impl ResultBackend for ModelBackend {
    fn record_bytes_max(&self) -> usize {
        1 << 20
    }

    async fn store(&self, batch: Vec<Store>) -> Result<Vec<Stored>, Error> {
        let passage = self.world.enter(self.worker, "store").await?;
        let stored = {
            let mut state = self.world.lock();
            if state.records.is_down() {
                return Err(unreachable_error());
            }
            let unstorable = |store: &Store| {
                store.record.task_id.as_str().starts_with(NEVER)
                    || store.record.result.windows(UNSTORABLE.len()).any(|part| part == UNSTORABLE)
            };
            if let Some(place) = batch.iter().position(unstorable) {
                // Whatever came before it may have been stored.
                let part = state.rng.usize(0..=place);
                batch.into_iter().take(part).for_each(|store| {
                    state.records.put(store);
                });
                return Err(Error::Act {
                    act: "store a record".into(),
                    retryable: false,
                    source: "not taken".into(),
                });
            }
            batch.into_iter().map(|store| state.records.put(store)).collect()
        };
        passage.leave().await?;
        Ok(stored)
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Error> {
        let passage = self.world.enter(self.worker, "get").await?;
        let records = {
            let state = self.world.lock();
            if state.records.is_down() {
                return Err(unreachable_error());
            }
            ids.iter().map(|id| state.records.by_id.get(id).cloned()).collect()
        };
        passage.leave().await?;
        Ok(records)
    }

    async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, Result<Record, Error>>, Error> {
        let now = self.world.lock().records.by_id.get(id).cloned();
        Ok(Box::pin(futures_util::stream::iter(now.map(Ok))))
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, Error> {
        Ok(self.world.lock().records.by_id.remove(id).is_some())
    }
}
