//! The embedded broker from end to end: this process sends, a worker process runs, stores and acknowledges.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rwork_backend::ResultBackend;
use rwork_broker::{Broker, Publish, Route};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{NewTask, QueueName, State, TaskId, Timestamp};
use tokio::process::{Child, Command};

use super::Bench;
use super::report::{Bound, Report};
use super::stats::percentile_ms;
use crate::failure::Failure;
use crate::wiring;

/// Messages of one send.
const BATCH: usize = 100;

/// Sends of a round of the round trip.
const ROUND_TRIPS: usize = 300;

/// Between two looks at whether the queue is empty: short against a drain of seconds.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) async fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::open(bench).await?;
    let (mut rates, mut trips) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        rates.push(stage.drain().await?);
        trips.push(stage.round_trip().await?);
    }
    stage.close().await?;
    let typical: Vec<f64> = trips.iter().map(|(p50, _)| *p50).collect();
    let worst: Vec<f64> = trips.iter().map(|(_, p99)| *p99).collect();
    let name = format!("embedded, 2 processes, sends of {BATCH}: send → run → store → ack");
    report.add(name, "/s", rates, Bound::AtLeast(20_000.0));
    report.add("embedded, idle: round trip, p50", "ms", typical, Bound::AtMost(1.0));
    report.add("embedded, idle: round trip, p99", "ms", worst, Bound::None);
    Ok(())
}

/// A worker process on a fresh file, and this process's end of it.
pub(crate) struct Stage<'a> {
    bench: &'a Bench<'a>,
    pub(crate) worker: Child,
    embedded: Embedded,
    queue: QueueName,
    directory: std::path::PathBuf,
}

impl<'a> Stage<'a> {
    pub(crate) async fn open(bench: &'a Bench<'a>) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("rwork-bench-{}", TaskId::generate()));
        std::fs::create_dir_all(&directory)?;
        let url = format!("embedded:{}", directory.join("bench.db").display());
        let worker = spawn_worker(bench, &url, &directory)?;
        let embedded = Embedded::open(Options::parse_url(&url)?)?;
        let queue = wiring::default_queue(bench.context.config()?)?;
        let stage = Self { bench, worker, embedded, queue, directory };
        // The first result says that the worker is up, and that the task works.
        stage.one().await?;
        Ok(stage)
    }

    /// Tasks per second, from the first send to an empty queue.
    async fn drain(&self) -> anyhow::Result<f64> {
        let started = Instant::now();
        let mut ids = Vec::with_capacity(self.bench.tasks);
        while ids.len() < self.bench.tasks {
            let size = BATCH.min(self.bench.tasks - ids.len());
            let mut batch = Vec::with_capacity(size);
            for _ in 0..size {
                let (id, publish) = self.message()?;
                ids.push(id);
                batch.push(publish);
            }
            self.embedded.publish_all(batch).await?;
        }
        while !self.is_empty().await? {
            tokio::time::sleep(LOOK).await;
        }
        let rate = ids.len() as f64 / started.elapsed().as_secs_f64();
        self.verify(&ids).await?;
        Ok(rate)
    }

    async fn is_empty(&self) -> anyhow::Result<bool> {
        let queues = self.embedded.queues().await?;
        Ok(queues.iter().filter(|info| info.name == self.queue).all(|info| info.ready + info.unsettled == 0))
    }

    /// A figure counts only when every result is there.
    async fn verify(&self, ids: &[TaskId]) -> anyhow::Result<()> {
        for chunk in ids.chunks(1_000) {
            for (id, record) in chunk.iter().zip(self.embedded.get(chunk).await?) {
                if record.is_none_or(|record| record.status != State::Success) {
                    return Err(Failure::failed(format!("task `{id}` of the benchmark has no result")).into());
                }
            }
        }
        Ok(())
    }

    /// p50 and p99 of a send and the wait for its result, in milliseconds, one at a time.
    async fn round_trip(&self) -> anyhow::Result<(f64, f64)> {
        let mut samples = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let started = Instant::now();
            self.one().await?;
            samples.push(started.elapsed());
        }
        Ok((percentile_ms(&mut samples, 50.0), percentile_ms(&mut samples, 99.0)))
    }

    async fn one(&self) -> anyhow::Result<()> {
        let (id, publish) = self.message()?;
        self.embedded.publish_all(vec![publish]).await?;
        let mut records = self.embedded.watch(&id).await?;
        while let Some(record) = records.next().await {
            let record = record?;
            match record.status {
                State::Success => return Ok(()),
                ready if ready.is_ready() => {
                    let why = String::from_utf8_lossy(&record.result).into_owned();
                    return Err(Failure::failed("the task of a benchmark must succeed")
                        .because(anyhow::anyhow!(why))
                        .into());
                }
                _ => {}
            }
        }
        Err(Failure::failed("the result of a benchmark's task did not come").into())
    }

    fn message(&self) -> anyhow::Result<(TaskId, Publish)> {
        let now = Timestamp::from_system(std::time::SystemTime::now());
        let message = NewTask::new(self.bench.task.clone()).args(self.bench.args.clone()).build(now)?;
        let id = message.headers.id.clone();
        Ok((id, Publish { route: Route::queue(&self.queue), message: message.encode(), not_before: None }))
    }

    /// Ends the worker and forgets the file.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.worker.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        self.worker.wait().await?;
        Ok(())
    }
}

fn spawn_worker(bench: &Bench<'_>, url: &str, directory: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--quiet", "--broker", url, "--backend", url, "--plugins"]).arg(&bench.plugins);
    if let Some(config) = &bench.context.global.config {
        command.arg("--config").arg(std::path::absolute(config)?);
    }
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// So that a failed run leaves nothing behind: the folder goes with the worker.
impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
