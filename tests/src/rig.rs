//! A whole worker in this process, of real parts only: the embedded broker in a file of its own, the sandbox, plugins from
//! a directory, the worker, and a client beside it.
//!
//! `setup` says what it is made of; this module starts it, sends to it, looks into it and ends it. It never replaces a part
//! by a model: the simulation in `runtime/worker` does that.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

pub mod component;
pub mod log;
mod setup;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Broker, DeadLetter, DeadLetterQuery, QueueInfo};
use rwork_client::Client;
use rwork_embedded::Embedded;
use rwork_plugin::{Error, LoadReport, Plugins};
use rwork_protocol::{NewTask, QueueName, Record, State, TaskId, TaskName};
use rwork_sandbox::{Metrics, Sandbox};
use rwork_worker::{Shutdown, Summary};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use setup::{NODE, Setup};

/// Longer than anything that is waited for takes on a busy machine; only a hang meets it.
const HANG: Duration = Duration::from_secs(120);

/// A running worker and everything around it.
#[derive(Debug)]
pub struct Rig {
    client: Client,
    store: Arc<Embedded>,
    sandbox: Sandbox,
    plugins: Plugins,
    report: LoadReport,
    queue: QueueName,
    shutdown: Shutdown,
    worker: JoinHandle<Result<Summary, rwork_worker::Error>>,
    directory: TempDir,
}

/// What a message says beside its task and arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    /// Hard time limit of this message.
    pub hard: Option<Duration>,
    /// Soft time limit of this message.
    pub soft: Option<Duration>,
}

impl CallOptions {
    /// A hard limit of so many milliseconds.
    #[must_use]
    pub fn hard(self, milliseconds: u64) -> Self {
        Self { hard: Some(Duration::from_millis(milliseconds)), ..self }
    }

    /// A soft limit of so many milliseconds.
    #[must_use]
    pub fn soft(self, milliseconds: u64) -> Self {
        Self { soft: Some(Duration::from_millis(milliseconds)), ..self }
    }
}

impl Rig {
    /// Sends a task and waits for it to end. `args`: one JSON array.
    ///
    /// # Panics
    /// When it can't be sent, or does not end.
    pub async fn call(&self, task: &str, args: impl Into<String>, options: CallOptions) -> Record {
        let id = self.send(task, args, options).await;
        self.wait(&id).await
    }

    /// Sends a task.
    ///
    /// # Panics
    /// When it can't be sent.
    pub async fn send(&self, task: &str, args: impl Into<String>, options: CallOptions) -> TaskId {
        self.client.send(message(task, args, options), &self.queue).await.unwrap()
    }

    /// Waits for a task to end.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait(&self, id: &TaskId) -> Record {
        self.client.wait(id, Some(HANG)).await.unwrap()
    }

    /// Waits for a task to reach a state.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait_for(&self, id: &TaskId, state: State) -> Record {
        use futures_util::StreamExt as _;
        let mut records = self.client.watch(id).await.unwrap();
        let reach = async {
            while let Some(record) = records.next().await {
                let record = record.unwrap();
                if record.status == state {
                    return record;
                }
                assert!(!record.status.is_ready(), "{id} ended before it was {state}: {record:?}");
            }
            panic!("the backend stopped watching {id}")
        };
        tokio::time::timeout(HANG, reach).await.expect("a task hangs")
    }

    /// The client, which may outlive a borrow of the rig.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The queue that the worker takes from.
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The plugins.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// How loading went at the start.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// What was refused at the start, by file name.
    pub fn refused(&self) -> Vec<(String, Arc<Error>)> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.report.refused.iter().map(|(path, error)| (name(path), Arc::clone(error))).collect()
    }

    /// Where the plugin files are.
    pub fn plugins_directory(&self) -> PathBuf {
        setup::plugins_directory(self.directory.path())
    }

    /// The messages that were given up.
    ///
    /// # Panics
    /// When the broker can't be read.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.store.dead_letters(DeadLetterQuery::default()).await.unwrap()
    }

    /// How full the worker's queue is.
    ///
    /// # Panics
    /// When the broker can't be read, or has no such queue.
    pub async fn depth(&self) -> QueueInfo {
        let queues = self.store.queues().await.unwrap();
        queues.into_iter().find(|queue| queue.name == self.queue).unwrap()
    }

    /// Waits until nothing of any task is left: no message in the queue or in the worker's hands (a result is visible
    /// before its message is acknowledged), no slot, and none of the pool's memories, tables, stacks and instances.
    ///
    /// # Panics
    /// When something stays.
    pub async fn until_idle(&self) {
        let empty = async {
            while !is_empty(&self.depth().await) || !is_idle(&self.sandbox.metrics()) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(HANG, empty).await.is_err() {
            panic!("something stays: {:?}, {:?}", self.depth().await, self.sandbox.metrics());
        }
    }

    /// Lets what runs end, and returns what was done.
    ///
    /// # Panics
    /// When the worker does not end well.
    pub async fn stop(mut self) -> Summary {
        self.shutdown.intake.cancel();
        self.ended().await
    }

    /// Ends what runs, as the second signal does, and returns what was done and what is left in the queue.
    ///
    /// # Panics
    /// When the worker does not end well.
    pub async fn kill(mut self) -> (Summary, QueueInfo) {
        self.shutdown.intake.cancel();
        self.shutdown.work.cancel();
        let summary = self.ended().await;
        (summary, self.depth().await)
    }

    async fn ended(&mut self) -> Summary {
        let ended = tokio::time::timeout(HANG, &mut self.worker).await.expect("the worker hangs");
        ended.expect("the worker panicked").expect("the worker failed")
    }
}

/// A message of the rig's own making, for `Client::send_many`.
///
/// # Panics
/// When no task can have that name.
pub fn message(task: &str, args: impl Into<String>, options: CallOptions) -> NewTask {
    let task = NewTask::new(TaskName::new(task).unwrap()).args(args.into());
    NewTask { hard_time_limit: options.hard, soft_time_limit: options.soft, ..task }
}

/// The I/O runtime of a rig is the test's own: it has to have threads of its own.
fn io() -> Handle {
    Handle::current()
}

fn is_empty(queue: &QueueInfo) -> bool {
    (queue.ready, queue.unsettled, queue.delayed) == (0, 0, 0)
}

/// Kept connections of guests' HTTP requests apart, which are the worker's.
fn is_idle(metrics: &Metrics) -> bool {
    let Metrics { in_flight, running, memories, tables, stacks, core_instances, component_instances, .. } =
        *metrics;
    (in_flight, running, memories, tables, stacks) == (0, 0, 0, 0, 0)
        && (core_instances, component_instances) == (0, 0)
}
