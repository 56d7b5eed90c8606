//! The model backend, as one worker reaches it.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rwork_backend::{ResultBackend, Store, Stored};
use rwork_model::StoreRecords;
use rwork_protocol::service::Error;
use rwork_protocol::{Record, State, TaskId};
use tokio::time::Instant;

use super::gate::{Passage, Through, Way, failure, unreachable_error};
use super::world::World;

/// In a result: this backend will never take it.
const UNSTORABLE: &[u8] = b"unstorable";
/// Beginning of the ids of tasks of which it takes no record at all.
const NEVER: &str = "never-stored";

/// True if a record can't be stored.
pub(super) fn is_unstorable(store: &Store) -> bool {
    store.record.task_id.as_str().starts_with(NEVER)
        || store.record.result.windows(UNSTORABLE.len()).any(|part| part == UNSTORABLE)
}

fn is_final(store: &Store) -> bool {
    store.record.status == State::Success
}

/// One worker's handle.
#[derive(Clone, Debug)]
pub(super) struct ModelBackend {
    pub(super) world: World,
    pub(super) worker: u64,
}

impl ModelBackend {
    async fn enter(&self, act: &'static str) -> Result<Through, Error> {
        match self.world.enter(self.worker, Way::Backend, act).await {
            Passage::Through(through) => Ok(through),
            Passage::Fails(error) => Err(error),
            Passage::Cut(_) => Err(unreachable_error()),
        }
    }

    /// Complains of what is no success and written when somebody may have reaped us.
    fn check_fresh(&self, batch: &[Store]) {
        if !batch.iter().all(is_final) && !self.world.is_fresh(self.worker, None) {
            let worker = self.worker;
            let text = format!("worker {worker} stores what is no success without a fresh renewal");
            self.world.lock().ledger.violation(text);
        }
    }
}

#[async_trait]
impl ResultBackend for ModelBackend {
    fn record_bytes_max(&self) -> usize {
        1 << 20
    }

    async fn store_before(
        &self,
        mut batch: Vec<Store>,
        moment: Option<Instant>,
    ) -> Result<Vec<Stored>, Error> {
        let boot_ahead = || self.world.boot(self.worker) - self.world.elapsed();
        let before = boot_ahead();
        let through = self.enter("store").await?;
        // The server's clock goes on while the worker's machine is suspended.
        let now = Instant::now() + (boot_ahead() - before);
        if moment.is_some_and(|moment| now >= moment) && !batch.iter().all(is_final) {
            batch.retain(is_final);
            self.world.apply(&StoreRecords(batch))?;
            through.leave().await;
            return Ok(vec![Stored::Late]);
        }
        self.check_fresh(&batch);
        if let Some(place) = batch.iter().position(is_unstorable) {
            // Whatever came before it may have been stored.
            let part = self.world.lock().rng.usize(0..=place);
            let _ = self.world.apply(&StoreRecords(batch.iter().take(part).cloned().collect()));
        }
        let stored = self.world.apply(&StoreRecords(batch))?;
        let is_lost = through.is_lost;
        through.leave().await;
        if is_lost { Err(failure("store", "the answer was lost")) } else { Ok(stored) }
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Error> {
        let through = self.enter("get").await?;
        let records = {
            let state = self.world.lock();
            ids.iter().map(|id| state.store.record(id).cloned()).collect()
        };
        let is_lost = through.is_lost;
        through.leave().await;
        if is_lost { Err(unreachable_error()) } else { Ok(records) }
    }

    async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, Result<Record, Error>>, Error> {
        let now = self.world.lock().store.record(id).cloned();
        Ok(Box::pin(futures_util::stream::iter(now.map(Ok))))
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, Error> {
        Ok(self.world.lock().store.forget_record(id))
    }
}
