//! The server that everybody is measured on, and the queue on it.
//!
//! Every message is what Celery's own client sent, once, with an id and a delivery tag of its own. A whole queue is made
//! under another name and put into place by one `RENAME` while the worker waits for it: filling costs nobody anything.

use std::process::Child;

use anyhow::Context as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use rwork_protocol::TaskId;
use rwork_tests::child;
use rwork_tests::redis::{Options, RedisServer};
use serde_json::Value;
use tempfile::TempDir;

use crate::peers::{Peer, client};

/// The queue.
const QUEUE: &str = "celery";
/// Where messages are until all of them are there.
const STAGED: &str = "bench.staged";
/// Messages of one push.
const PUSH: usize = 1_000;
/// Results of one look.
const LOOK: usize = 1_000;
/// Between two looks at how far a worker is: short against any drain, and a thousandth of a core's time.
pub(crate) const PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// Server, connection, and a directory to run in.
#[derive(Debug)]
pub(crate) struct Stage {
    server: RedisServer,
    redis: MultiplexedConnection,
    directory: TempDir,
    /// What Celery's client sent, cut where an id or a tag goes.
    template: Template,
}

/// A worker that serves the queue. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Serving(Child);

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// In the queue.
    pub(crate) queued: usize,
    /// Taken and not finished.
    pub(crate) held: usize,
}

impl Left {
    pub(crate) fn all(self) -> usize {
        self.queued + self.held
    }
}

impl Stage {
    /// A plain server in memory, as all of the peers' own benchmarks use one.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let server = RedisServer::start(Options::default())?;
        let mut redis = server.connect(0).await?;
        let sent = client(&server.url(0)).arg("send").status()?;
        anyhow::ensure!(sent.success(), "Celery's client failed: {sent}");
        let message: String = redis.rpop(QUEUE, None).await?;
        let template = Template::of(&message)?;
        Ok(Self { server, redis, directory: tempfile::tempdir()?, template })
    }

    /// The server's URL, for broker and backend.
    pub(crate) fn url(&self) -> String {
        self.server.url(0)
    }

    /// Forgets everything, then starts a worker and waits until it has done so many tasks: it is up, its connections are
    /// made and its code is warm.
    pub(crate) async fn serve(&self, peer: &Peer, warm_up: usize) -> anyhow::Result<Serving> {
        let mut redis = self.redis.clone();
        let () = redis::cmd("FLUSHALL").query_async(&mut redis).await?;
        let mut serving = Serving(child::spawn(peer.command(&self.url(), self.directory.path())?)?);
        self.stage(warm_up).await?;
        self.reveal().await?;
        while self.left(peer).await?.all() > 0 {
            serving.lives(peer)?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(serving)
    }

    /// Makes messages, out of everybody's sight. Returns their task ids.
    pub(crate) async fn stage(&self, count: usize) -> anyhow::Result<Vec<TaskId>> {
        let mut redis = self.redis.clone();
        let ids: Vec<TaskId> = (0..count).map(|_| TaskId::generate()).collect();
        for part in ids.chunks(PUSH) {
            let messages: Vec<String> = part.iter().map(|id| self.template.fill(id.as_str())).collect();
            let () = redis.lpush(STAGED, messages).await?;
        }
        Ok(ids)
    }

    /// Puts what was made into the queue, all of it in one step.
    pub(crate) async fn reveal(&self) -> anyhow::Result<()> {
        let mut redis = self.redis.clone();
        Ok(redis.rename(STAGED, QUEUE).await?)
    }

    /// How much the worker has before it.
    pub(crate) async fn left(&self, peer: &Peer) -> anyhow::Result<Left> {
        let mut redis = self.redis.clone();
        let look = redis::pipe().llen(QUEUE).hlen(peer.held).query_async(&mut redis).await?;
        let (queued, held) = look;
        Ok(Left { queued, held })
    }

    /// A figure counts only when every result is there.
    pub(crate) async fn verify(&self, ids: &[TaskId]) -> anyhow::Result<()> {
        let mut redis = self.redis.clone();
        for part in ids.chunks(LOOK) {
            let keys: Vec<String> = part.iter().map(|id| format!("celery-task-meta-{id}")).collect();
            let records: Vec<Option<String>> = redis.mget(keys).await?;
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

impl Serving {
    /// A worker that has ended would be waited for in vain.
    pub(crate) fn lives(&mut self, peer: &Peer) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => anyhow::bail!("{} ended in the middle: {status}", peer.name),
            None => Ok(()),
        }
    }

    /// Ends it: there is nothing left that it could lose.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.kill()
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        if self.0.try_wait()?.is_none() {
            child::signal(&self.0, Signal::TERM)?;
            self.0.wait()?;
        }
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that can't be ended dies with this process.
        let _ = self.kill();
    }
}

/// A message with holes: its parts, and what goes between them.
#[derive(Debug)]
struct Template {
    text: String,
    id: String,
    tag: String,
}

impl Template {
    fn of(message: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(message).context("what Celery sent is no JSON")?;
        let at = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let id = at("/headers/id").context("what Celery sent has no id")?;
        let tag = at("/properties/delivery_tag").context("what Celery sent has no delivery tag")?;
        Ok(Self { text: message.to_owned(), id, tag })
    }

    /// One uuid serves as both: it need only be different in each message.
    fn fill(&self, id: &str) -> String {
        self.text.replace(&self.id, id).replace(&self.tag, id)
    }
}
