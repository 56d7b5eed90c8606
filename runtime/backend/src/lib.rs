//! What a result backend must be able to do, without naming one.
//!
//! Records are stored in batches. Every record has an expiry, set in the same step that writes it.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rwork_protocol::{Record, TaskId};
use tokio::time::Instant;

pub use rwork_protocol::service::{BoxError, Error, RedactedUrl};

/// How long a record is kept unless configured otherwise (Celery's `result_expires`): one day.
pub const RESULT_EXPIRES: Duration = Duration::from_secs(86_400);

/// A record to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The record.
    pub record: Record,
    /// Kept so long from now; `None`: for ever (`result_expires = 0`).
    pub expires: Option<Duration>,
    /// Where an rpc backend sends it (the message's `reply_to`).
    pub reply_to: Option<String>,
    /// What an rpc backend puts on it; the task id when absent.
    pub correlation_id: Option<String>,
}

impl Store {
    /// Bytes of the record, about: its result and whatever else of it may be large.
    pub fn size(&self) -> usize {
        const SMALL: usize = 512;
        let Record { result, traceback, children, extended, .. } = &self.record;
        let call = extended
            .as_ref()
            .map_or(0, |call| [&call.args, &call.kwargs].into_iter().flatten().map(bytes::Bytes::len).sum());
        let told = traceback.as_ref().map_or(0, String::len) + children.as_ref().map_or(0, bytes::Bytes::len);
        SMALL + result.len() + told + call
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Written; whoever watches the task was told.
    Written,
    /// A SUCCESS record stood there, which is final: nothing was changed.
    Kept,
    /// The record, which is no SUCCESS, came to the store after the moment that was set: nothing was changed.
    Late,
}

/// A place for results. Shared by every task of a process.
#[async_trait]
pub trait ResultBackend: Send + Sync + std::fmt::Debug + 'static {
    /// Largest record it takes, in bytes.
    fn record_bytes_max(&self) -> usize;

    /// Stores a batch durably, in order; answers in order.
    ///
    /// # Errors
    /// On an error any part may have been stored; storing the batch again is right.
    async fn store(&self, batch: Vec<Store>) -> Result<Vec<Stored>, Error> {
        self.store_before(batch, None).await
    }

    /// Stores a batch as [`ResultBackend::store`] does; with `moment`, what is no SUCCESS is written before it or not at all,
    /// however long the call is on its way: the record of a worker that was stopped must not replace one of whoever has
    /// its message now.
    ///
    /// # Errors
    /// On an error any part may have been stored; storing the batch again is right.
    async fn store_before(&self, batch: Vec<Store>, moment: Option<Instant>) -> Result<Vec<Stored>, Error>;

    /// Reads records; `None` where there is none (PENDING) or it has expired.
    ///
    /// # Errors
    /// When the backend can't be reached.
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Error>;

    /// The record that stands, if any, then each change, until a ready state. Never misses the last one.
    ///
    /// # Errors
    /// When the backend can't be reached; items carry later failures.
    async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, Result<Record, Error>>, Error>;

    /// Deletes a record; true when there was one.
    ///
    /// # Errors
    /// When the backend can't be reached.
    async fn forget(&self, id: &TaskId) -> Result<bool, Error>;

    /// Where results for this process are to be sent, when they are messages to whoever asked: what a sender puts into
    /// `reply_to`. `None`: they are stored, for everybody.
    ///
    /// # Errors
    /// When the backend can't be reached: nobody would hear of the results.
    async fn reply_to(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }
}
