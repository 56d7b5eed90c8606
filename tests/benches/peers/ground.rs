//! Where workers are measured: one broker, one queue on it, and one worker at a time that serves it.
//!
//! What a worker has before it is seen from outside, at the server, and is the same for every worker: no worker counts for
//! itself.

use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use rwork_protocol::TaskId;
use rwork_tests::child;

use crate::peers::Peer;

/// The queue.
pub(crate) const QUEUE: &str = "celery";

/// Where a worker and its client connect to.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) broker: String,
    pub(crate) backend: String,
}

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

/// One broker. Every message is what Celery's own client sent, once, with an id of its own.
pub(crate) trait Ground {
    /// Where everybody connects to.
    fn urls(&self) -> Urls;

    /// Forgets everything, and starts a worker.
    async fn start(&self, peer: &Peer) -> anyhow::Result<Serving>;

    /// Fills the queue, which costs nobody anything: the worker meets all of it at once. Returns the tasks.
    async fn fill(&self, serving: &Serving, tasks: usize) -> anyhow::Result<Vec<TaskId>>;

    /// Between two looks at how far a worker is: short against any drain, and little of a core's time.
    fn pause(&self) -> Duration;

    /// How much the worker has before it.
    async fn left(&self, peer: &Peer) -> anyhow::Result<Left>;

    /// A figure counts only when every result is there.
    async fn verify(&self, ids: &[TaskId]) -> anyhow::Result<()>;

    /// Starts a worker and waits until it has done so many tasks: it is up, its connections are made and its code is warm.
    async fn serve(&self, peer: &Peer, warm_up: usize) -> anyhow::Result<Serving> {
        let mut serving = self.start(peer).await?;
        self.fill(&serving, warm_up).await?;
        self.done(peer, &mut serving).await?;
        Ok(serving)
    }

    /// Waits until nothing is left.
    async fn done(&self, peer: &Peer, serving: &mut Serving) -> anyhow::Result<()> {
        while self.left(peer).await?.all() > 0 {
            serving.lives(peer)?;
            tokio::time::sleep(self.pause()).await;
        }
        Ok(())
    }
}

/// A worker that serves the queue. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Serving(Child);

impl Serving {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// A worker that has ended would be waited for in vain.
    pub(crate) fn lives(&mut self, peer: &Peer) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => anyhow::bail!("{} ended in the middle: {status}", peer.name),
            None => Ok(()),
        }
    }

    /// CPU time that its process has taken so far, user's and system's (`proc_pid_stat(5)`, fields 14 and 15).
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, in brackets, may contain anything.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        child::signal(&self.0, signal)
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
