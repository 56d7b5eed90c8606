//! A Celery worker in Python, with the tasks of `tests/python/app.py`.

use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::Value;

use crate::child;
use crate::lines::Lines;
use crate::python::{Version, sources};

/// What runs its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// In the worker's own thread, one at a time: the quickest to start.
    Solo,
    /// So many threads.
    Threads(u32),
    /// So many processes: Celery's default, and the only one with time limits.
    Prefork(u32),
}

/// A running `celery worker`. Killed when dropped.
#[derive(Debug)]
pub struct PythonWorker {
    node: String,
    child: Option<Child>,
    log: Lines,
}

impl PythonWorker {
    /// Starts one by this node name and waits until it consumes. `settings`: as for a client. `folder`: for gates and log.
    ///
    /// # Errors
    /// When it ends before it is ready; what it wrote is in the error.
    pub async fn start(
        version: Version,
        node: &str,
        pool: Pool,
        settings: &Value,
        folder: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let (pool, concurrency) = match pool {
            Pool::Solo => ("solo", 1),
            Pool::Threads(threads) => ("threads", threads),
            Pool::Prefork(processes) => ("prefork", processes),
        };
        let concurrency = concurrency.to_string();
        let mut command = child::mortal(version.interpreter());
        command.args(["-u", "-m", "celery", "-A", "app", "worker", "-n", node, "-l", "INFO"]);
        command.args(["-P", pool, "-c", &concurrency]);
        command.args(["--without-gossip", "--without-mingle", "--without-heartbeat"]).args(arguments);
        command.current_dir(folder).env("PYTHONPATH", sources()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("RWORK_TESTS_APP", settings.to_string()).env("RWORK_TESTS_FOLDER", folder);
        // Running as root is what a container does; celery warns of it only with pickle.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut started = child::spawn(command)?;
        let log = Lines::default();
        log.follow(started.stderr.take().context("Python has no stderr")?);
        let worker = Self { node: node.to_owned(), child: Some(started), log };
        worker
            .log
            .find(0, |line| line.contains(" ready."))
            .await
            .context("the Python worker did not start")?;
        Ok(worker)
    }

    /// Its node name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What it logs: `Task wire.add[ID] received`, and `holding N` when `wire.hold` runs.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// Waits until it runs the `wire.hold` of this number.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn holds(&self, number: u64) -> anyhow::Result<()> {
        let wanted = format!("holding {number}");
        self.log.find(0, |line| line.ends_with(&wanted)).await.map(drop)
    }

    /// Kills it as `kill -9` does, its pool with it, and returns when it is gone.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill_9(mut self) -> anyhow::Result<()> {
        self.end(Signal::KILL).map(drop)
    }

    /// Asks it to finish what runs and leave (warm shutdown), and waits for its end.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        tokio::task::spawn_blocking(move || self.end(Signal::TERM)).await?
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("it has ended")?;
        child::signal(&child, signal)?;
        Ok(child.wait()?)
    }
}

impl Drop for PythonWorker {
    fn drop(&mut self) {
        // One that was ended already is no failure.
        let _ = self.end(Signal::KILL);
    }
}
