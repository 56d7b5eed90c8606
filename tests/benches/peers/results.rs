//! The Redis that results are kept in, on whatever broker.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rwork_protocol::TaskId;
use rwork_tests::redis::{Options, RedisServer};
use serde_json::Value;

/// How long the last results are waited for.
const LATEST: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Results of one look.
const LOOK: usize = 1_000;

/// A plain server in memory, as all of the peers' own benchmarks use one.
#[derive(Debug)]
pub(crate) struct Results {
    server: RedisServer,
    redis: MultiplexedConnection,
}

impl Results {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let server = RedisServer::start(Options::default())?;
        let redis = server.connect(0).await?;
        Ok(Self { server, redis })
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(0)
    }

    /// The connection by which we look into it.
    pub(crate) fn redis(&self) -> MultiplexedConnection {
        self.redis.clone()
    }

    /// Forgets everything.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        Ok(redis::cmd("FLUSHALL").query_async(&mut self.redis()).await?)
    }

    /// Every one of these tasks must have succeeded. Who acknowledges before may still be storing the last ones.
    pub(crate) async fn verify(&self, ids: &[TaskId]) -> anyhow::Result<()> {
        let mut redis = self.redis();
        let deadline = Instant::now() + LATEST;
        for part in ids.chunks(LOOK) {
            let keys: Vec<String> = part.iter().map(|id| format!("celery-task-meta-{id}")).collect();
            let mut records: Vec<Option<String>> = redis.mget(&keys).await?;
            while records.contains(&None) && Instant::now() < deadline {
                tokio::time::sleep(LOOK_AGAIN).await;
                records = redis.mget(&keys).await?;
            }
            for (id, record) in part.iter().zip(records) {
                let record = record.with_context(|| format!("task `{id}` has no result"))?;
                let value: Value = serde_json::from_str(&record)?;
                let status = value.get("status").and_then(Value::as_str);
                anyhow::ensure!(status == Some("SUCCESS"), "task `{id}` ended as {record}");
            }
        }
        Ok(())
    }
}
