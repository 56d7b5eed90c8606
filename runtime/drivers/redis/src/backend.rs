//! The result backend trait on Redis, with Celery's keys and records (`celery-wire.md` §2.9, §4.1–4.3).

mod hub;
mod keys;
mod late_subscribers;
mod moment;
mod store;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redis::Value;
use rwork_backend::{Error, ResultBackend, Store, Stored};
use rwork_protocol::service::RedactedUrl;
use rwork_protocol::{Record, TaskId, stored};
use tokio::time::Instant;

use crate::handle::Redis;
pub(crate) use hub::Hub;
pub(crate) use keys::Keys;
pub(crate) use late_subscribers::LateSubscribers;
pub(crate) use moment::ServerClock;
pub(crate) use store::expiry_ms;

/// Records read by one command: a few hundred keep the server's pause short.
const READ_MAX: usize = 256;

#[async_trait]
impl ResultBackend for Redis {
    fn record_bytes_max(&self) -> usize {
        self.inner.options.record_bytes_max
    }

    async fn store_before(&self, batch: Vec<Store>, moment: Option<Instant>) -> Result<Vec<Stored>, Error> {
        store::store(&self.inner, &batch, moment).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Record>>, Error> {
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_MAX) {
            let mut cmd = redis::cmd("MGET");
            for id in ids {
                cmd.arg(self.inner.result_keys.record(id));
            }
            let values = self.inner.commands.command("read results", &cmd).await?;
            for value in values.into_sequence().unwrap_or_default() {
                records.push(match value {
                    Value::BulkString(stored) => Some(decode(stored.into(), &self.inner.url)?),
                    _ => None,
                });
            }
        }
        Ok(records)
    }

    async fn watch(&self, id: &TaskId) -> Result<BoxStream<'static, Result<Record, Error>>, Error> {
        Ok(self.inner.hub.watch(self.inner.result_keys.record(id)).await?.boxed())
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, Error> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(self.inner.result_keys.record(id));
        Ok(self.inner.commands.command("forget a result", &cmd).await? == Value::Int(1))
    }
}

fn decode(bytes: Bytes, url: &RedactedUrl) -> Result<Record, Error> {
    let explain = |source| Error::Act { act: format!("decode a result at {url}"), retryable: false, source };
    stored::read(bytes).map_err(explain)
}
