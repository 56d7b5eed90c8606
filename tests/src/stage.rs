//! One queue on real servers with everybody around it: rwork workers as processes, Celery clients, Python workers.
//!
//! Owns the folder that workers run in (plugins, configuration, gates, what tasks write down) and says who connects where.
//! On the shared servers each stage has a database, and a virtual host, of its own, so that all keys, names and settings
//! are the default ones.

mod rabbit;
mod shared;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::rwork;
use crate::celery::{Client, Pool, PythonWorker};
use crate::guests::{guest, target_directory};
use crate::journal::{Entry, Journal};
use crate::process::{WorkerProcess, is_full_run};
use crate::proxy::Proxy;
use crate::python::{Raised, Version};
use crate::redis::RedisServer;

pub use rabbit::Rabbit;
pub use shared::{is_served_by_celery, shared};

/// The default queue.
const QUEUE: &str = "celery";
/// Longer than any test here takes on a busy machine; only a hang meets it.
const HANG: Duration = Duration::from_secs(120);
/// The same for the long runs, with a hundred times the tasks.
const HANG_OF_FULL_RUN: Duration = Duration::from_secs(3600);
/// How many lines of the workers' logs are shown when a test fails.
const LAST_WORDS: usize = 60;

/// Which servers a stage has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Redis for messages and results.
    Redis,
    /// RabbitMQ for messages, Redis for results: the usual pair.
    RabbitMq,
    /// The same with quorum queues.
    Quorum,
    /// RabbitMQ alone: results are sent to who asked.
    Rpc,
}

/// Where workers and clients meet.
#[derive(Debug)]
pub struct Stage {
    directory: TempDir,
    broker: String,
    backend: String,
    database: u32,
    server: Option<Arc<RedisServer>>,
    /// The broker, where it is not Redis.
    rabbit: Option<Rabbit>,
    /// rwork's settings that come with the kind of stage.
    basics: &'static str,
    /// Celery's settings beside the two URLs, for clients and Python workers.
    settings: Value,
    /// What the rwork workers log.
    pub journal: Journal,
}

impl Stage {
    /// A stage on the shared server, in an empty database.
    ///
    /// # Errors
    /// When its folder can't be written.
    pub fn new() -> anyhow::Result<Self> {
        let database = RedisServer::fresh_database();
        let url = RedisServer::shared().url(database);
        Self::set_up(url.clone(), url, database, None)
    }

    /// A stage on a server of its own.
    ///
    /// # Errors
    /// When its folder can't be written.
    pub fn on(server: Arc<RedisServer>) -> anyhow::Result<Self> {
        let url = server.url(0);
        Self::set_up(url.clone(), url, 0, Some(server))
    }

    /// A stage whose broker and backend are found by these URLs; the server is the one that is looked into.
    ///
    /// # Errors
    /// When its folder can't be written.
    pub fn at(server: Arc<RedisServer>, broker: String, backend: String) -> anyhow::Result<Self> {
        Self::set_up(broker, backend, 0, Some(server))
    }

    /// A stage on the shared servers of this kind, in an empty database and virtual host.
    ///
    /// # Errors
    /// When its folder can't be written, or RabbitMQ refuses.
    pub async fn of(kind: Kind) -> anyhow::Result<Self> {
        match kind {
            Kind::Redis => Self::new(),
            _ => Self::with(kind, Rabbit::shared().await?),
        }
    }

    /// A stage whose broker is this virtual host.
    ///
    /// # Errors
    /// When its folder can't be written.
    pub fn with(kind: Kind, rabbit: Rabbit) -> anyhow::Result<Self> {
        let database = RedisServer::fresh_database();
        let backend = match kind {
            Kind::Rpc => "rpc://".to_owned(),
            _ => RedisServer::shared().url(database),
        };
        let mut stage = Self::set_up(rabbit.url(), backend, database, None)?;
        stage.rabbit = Some(rabbit);
        if kind == Kind::Quorum {
            stage.basics =
                "task_default_queue_type = \"quorum\"\ntask_create_missing_queue_type = \"quorum\"";
            stage.settings = json!({
                "task_default_queue_type": "quorum",
                "task_create_missing_queue_type": "quorum",
                "broker_transport_options": {"confirm_publish": true},
            });
        }
        stage.configure("", "")?;
        Ok(stage)
    }

    fn set_up(
        broker: String,
        backend: String,
        database: u32,
        server: Option<Arc<RedisServer>>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("plugins"))?;
        std::fs::create_dir(directory.path().join("folder"))?;
        std::fs::copy(guest("wire"), directory.path().join("plugins/wire.wasm"))?;
        let stage = Self {
            directory,
            broker,
            backend,
            database,
            server,
            rabbit: None,
            basics: "",
            settings: json!({}),
            journal: Journal::default(),
        };
        stage.configure("", "")?;
        Ok(stage)
    }

    /// The stage with these settings of Celery's, by their lower-case names, for clients and Python workers.
    #[must_use]
    pub fn with_settings(mut self, settings: Value) -> Self {
        if let (Some(all), Value::Object(more)) = (self.settings.as_object_mut(), settings) {
            all.extend(more);
        }
        self
    }

    /// Writes rwork's configuration: these settings, and these tables.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn configure(&self, settings: &str, tables: &str) -> anyhow::Result<()> {
        let cache = target_directory().join("rwork-tests-cache");
        let basics = self.basics;
        let text = format!(
            "plugins_cache_dir = {cache:?}\n{basics}\n{settings}\n{tables}\n\
             [plugins.wire.grants]\ndirs = [{{ host = \"folder\", guest = \"/folder\", access = \"write\" }}]\n"
        );
        Ok(std::fs::write(self.directory.path().join("rwork.toml"), text)?)
    }

    /// Starts an rwork worker and waits until it consumes.
    ///
    /// # Errors
    /// When it ends before; its log is in the error.
    pub async fn worker(&self, node: &str, arguments: &[&str]) -> anyhow::Result<WorkerProcess> {
        let arguments = [&["--broker", &self.broker, "--backend", &self.backend], arguments].concat();
        WorkerProcess::start_in(self.directory.path(), node, &arguments, &self.journal).await
    }

    /// The same with a proxy between it and the Redis server, which is the stage's own.
    ///
    /// # Errors
    /// As [`Stage::worker`].
    pub async fn worker_through(
        &self,
        proxy: &Proxy,
        node: &str,
        arguments: &[&str],
    ) -> anyhow::Result<WorkerProcess> {
        let (from, to) = (format!(":{}/", self.server().port()), format!(":{}/", proxy.port()));
        let (broker, backend) = (self.broker.replace(&from, &to), self.backend.replace(&from, &to));
        let arguments = [&["--broker", &broker, "--backend", &backend], arguments].concat();
        WorkerProcess::start_in(self.directory.path(), node, &arguments, &self.journal).await
    }

    /// Starts a Celery worker and waits until it consumes.
    ///
    /// # Errors
    /// When it ends before; its log is in the error.
    pub async fn python_worker(
        &self,
        node: &str,
        pool: Pool,
        arguments: &[&str],
    ) -> anyhow::Result<PythonWorker> {
        self.python_worker_of(Version::Current, node, pool, arguments).await
    }

    /// The same of another version.
    ///
    /// # Errors
    /// As [`Stage::python_worker`].
    pub async fn python_worker_of(
        &self,
        version: Version,
        node: &str,
        pool: Pool,
        arguments: &[&str],
    ) -> anyhow::Result<PythonWorker> {
        PythonWorker::start(version, node, pool, &self.celery_settings(), &self.folder(), arguments).await
    }

    /// A Celery client of the current version.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn client(&self) -> Result<Client, Raised> {
        self.client_of(Version::Current).await
    }

    /// A Celery client.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn client_of(&self, version: Version) -> Result<Client, Raised> {
        self.client_with(version, json!({})).await
    }

    /// A Celery client with further settings.
    ///
    /// # Errors
    /// What Celery raised.
    pub async fn client_with(&self, version: Version, settings: Value) -> Result<Client, Raised> {
        let mut all = self.celery_settings();
        if let (Some(all), Value::Object(more)) = (all.as_object_mut(), settings) {
            all.extend(more);
        }
        Client::open(version, all).await
    }

    /// What clients and Python workers are configured with.
    fn celery_settings(&self) -> Value {
        let mut settings = json!({"broker_url": self.broker, "result_backend": self.backend});
        if let (Some(all), Some(more)) = (settings.as_object_mut(), self.settings.as_object()) {
            all.extend(more.clone());
        }
        settings
    }

    /// A connection to look into the Redis database.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        self.server().connect(self.database).await
    }

    /// Waits until this holds of the Redis database. It is looked at whenever a key changes.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn until(
        &self,
        holds: impl AsyncFnMut(&mut MultiplexedConnection) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.server().until(self.database, holds).await
    }

    /// The Redis server.
    pub fn server(&self) -> &RedisServer {
        self.server.as_deref().unwrap_or_else(|| RedisServer::shared())
    }

    /// The number of its database.
    pub fn database(&self) -> u32 {
        self.database
    }

    /// The broker's URL.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The result backend's URL.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The virtual host that is its broker.
    ///
    /// # Errors
    /// When the broker is Redis.
    pub fn rabbit(&self) -> anyhow::Result<&Rabbit> {
        self.rabbit.as_ref().context("this stage has no RabbitMQ")
    }

    /// Where workers run.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where tasks look for gates and write their log.
    pub fn folder(&self) -> PathBuf {
        self.directory.path().join("folder")
    }

    /// Lets the tasks go on that wait for this gate.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn open(&self, gate: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder().join(gate), "")?)
    }

    /// What the tasks wrote down so far: word, number, node.
    ///
    /// # Errors
    /// When a line is none of theirs.
    pub fn log(&self) -> anyhow::Result<Vec<(String, u64, String)>> {
        let text = match std::fs::read_to_string(self.folder().join("log")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (word, number, node) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
            Some((word.to_owned(), number, node.to_owned()))
        };
        text.lines()
            .map(|text| line(text).with_context(|| format!("no line of a task's: `{text}`")))
            .collect()
    }

    /// How often the task of this number was started.
    ///
    /// # Errors
    /// As [`Stage::log`].
    pub fn starts(&self, number: u64) -> anyhow::Result<usize> {
        Ok(self.log()?.iter().filter(|(word, of, _)| word == "start" && *of == number).count())
    }

    /// Number of times that rwork workers have started this task so far, by their logs.
    pub fn begun(&self, id: &str) -> usize {
        let is_start = |entry: &Entry| entry.says("task started") && entry.field("task_id") == Some(id);
        self.journal.so_far().iter().filter(|entry| is_start(entry)).count()
    }

    /// Runs a command of the `rwork` binary on this broker and backend, and returns what it printed.
    ///
    /// # Errors
    /// When it fails; what it printed is in the error.
    pub async fn rwork(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::from(crate::binary::rwork_in(self.path()));
        let output = command
            .args(["--broker", &self.broker, "--backend", &self.backend])
            .args(arguments)
            .output()
            .await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`rwork {}`: {stderr}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The dead letters.
    ///
    /// # Errors
    /// As [`Stage::rwork`].
    pub async fn dead(&self) -> anyhow::Result<Vec<Value>> {
        Ok(serde_json::from_str(&self.rwork(&["dead", "list", "--json"]).await?)?)
    }

    /// Waits until no message is in the default queue and none is held by anybody.
    ///
    /// # Errors
    /// When the server ends.
    pub async fn settled(&self) -> anyhow::Result<()> {
        if let Some(rabbit) = &self.rabbit {
            return rabbit
                .until(|queues| queues.iter().all(|queue| queue.name != QUEUE || queue.is_empty()))
                .await;
        }
        self.until(async |redis| {
            let (queued, held): (u64, u64) =
                redis::pipe().llen(QUEUE).hlen("unacked").query_async(redis).await?;
            Ok(queued + held == 0)
        })
        .await
    }

    /// Waits until an rwork worker has started this task.
    pub async fn started(&self, id: &str) -> Entry {
        self.said("task started", id).await
    }

    /// Waits until an rwork worker has logged this of a task, since the stage was set up.
    pub async fn said(&self, message: &str, id: &str) -> Entry {
        let mut log = self.journal.reader();
        log.find(|entry| entry.says(message) && entry.field("task_id") == Some(id)).await
    }

    /// Awaits a whole test: [`unless_it_hangs`] with this stage's workers.
    ///
    /// # Errors
    /// The test's own, or that it hangs.
    pub async fn test<T>(&self, test: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        unless_it_hangs(&self.journal, test).await
    }
}

/// Awaits a whole test. One that hangs fails, with the end of every rwork worker's log, instead of stopping the run.
///
/// # Errors
/// The test's own, or that it hangs.
pub async fn unless_it_hangs<T>(
    journal: &Journal,
    test: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let said = || {
        let entries = journal.so_far();
        let last = entries.len().saturating_sub(LAST_WORDS);
        entries.iter().skip(last).map(Entry::to_string).collect::<Vec<_>>().join("\n")
    };
    // Building it may take minutes, which are not the test's.
    rwork();
    let hang = if is_full_run() { HANG_OF_FULL_RUN } else { HANG };
    match tokio::time::timeout(hang, test).await {
        Ok(outcome) => outcome.with_context(|| format!("the rwork workers' last words:\n{}", said())),
        Err(_) => anyhow::bail!("it hangs; the rwork workers' last words:\n{}", said()),
    }
}
