//! The rpc result backend (`celery-wire.md` §4.8): each state of a task is a message to whoever asked for it.
//!
//! The worker's half publishes to the queue of `reply_to`. The sender's half has one queue for all its results, which it
//! begins to consume when it first sends something. Nothing is stored anywhere: results go to their sender alone.

mod keeper;
mod replies;
mod send;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rwork_backend::{Error, ResultBackend, Store, Stored};
use rwork_protocol::{Record, TaskId};
use tokio::time::Instant;

use crate::handle::{Amqp, Inner};
pub(crate) use replies::Replies;

#[async_trait]
impl ResultBackend for Amqp {
    fn record_bytes_max(&self) -> usize {
        self.inner.options.message_bytes_max
    }

    async fn store_before(&self, batch: Vec<Store>, _: Option<Instant>) -> Result<Vec<Stored>, Error> {
        send::send(&self.inner, &batch).await?;
        Ok(vec![Stored::Written; batch.len()])
    }

    /// What has come back to this process so far.
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Error> {
        self.inner.must_be_ours()?;
        Ok(ids.iter().map(|id| self.inner.replies.get(id)).collect())
    }

    async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, Result<Record, Error>>, Error> {
        self.inner.must_be_ours()?;
        Ok(self.inner.replies.watch(id))
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, Error> {
        self.inner.must_be_ours()?;
        Ok(self.inner.replies.forget(id))
    }

    async fn reply_to(&self) -> Result<Option<String>, Error> {
        let queue = self.inner.replies.queue(&self.inner).await?;
        Ok(Some(queue.to_owned()))
    }
}

impl Inner {
    /// Whoever has not sent anything gets nothing back, however long it waits.
    fn must_be_ours(&self) -> Result<(), Error> {
        if self.replies.is_open() {
            return Ok(());
        }
        Err(Error::Unsupported {
            url: self.url.clone(),
            what: "read results of tasks that others sent: with `rpc://` they go to their sender alone (`--backend redis://...` keeps them for everybody)"
                .to_owned(),
        })
    }
}
