//! The result backend trait on the file.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use rwork_backend::{Error, ResultBackend, Store, Stored};
use rwork_protocol::{Record, State, TaskId};
use tokio::time::Instant;

use crate::acts::result::{self, Entry};
use crate::error;
use crate::handle::{Embedded, Inner};
use crate::reader::Question;
use crate::row::Key;
use crate::watch::{self, Watched};

#[async_trait]
impl ResultBackend for Embedded {
    fn record_bytes_max(&self) -> usize {
        self.inner.options.record_bytes_max
    }

    async fn store_before(&self, batch: Vec<Store>, moment: Option<Instant>) -> Result<Vec<Stored>, Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let batch = batch.iter().map(|store| self.inner.entry(store)).collect::<Result<_, _>>()?;
        self.inner.act(result::Store { batch, moment: moment.map(Instant::into_std) }).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Error> {
        let keys: Vec<Key> = ids.iter().map(Key::new).collect();
        let now = self.inner.options.clock.now();
        let read =
            move |db: &_| keys.iter().map(|key| watch::read(db, key, now)).collect::<Result<Vec<_>, _>>();
        let bodies = self.inner.read("read results", read).await?;
        let decode = |body: bytes::Bytes| watch::decode(&body, &self.inner.url);
        bodies.into_iter().map(|body| body.map(decode).transpose()).collect()
    }

    async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, Result<Record, Error>>, Error> {
        let (watched, slot) = Watched::new(Key::new(id), self.inner.url.clone());
        if !self.inner.reads.send(Question::Watch(watched)).await {
            return Err(error::closed(&self.inner.url));
        }
        Ok(watch::stream(slot))
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, Error> {
        self.inner.act(result::Forget { key: Key::new(id) }).await
    }
}

impl Inner {
    /// Encodes a record.
    pub(crate) fn entry(&self, store: &Store) -> Result<Entry, Error> {
        let body = store.record.encode();
        let (limit, size) = (self.options.record_bytes_max, body.len());
        if size > limit {
            return Err(Error::TooLarge { limit, size });
        }
        Ok(Entry {
            key: Key::new(&store.record.task_id),
            body,
            is_final: store.record.status == State::Success,
            expires: store.expires.map(|keep| self.options.clock.now().plus(keep)),
        })
    }
}
