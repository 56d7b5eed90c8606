//! What a rig is made of, and how it is put together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rwork_client::Client;
use rwork_embedded::{Embedded, Options};
use rwork_plugin::{Deployment, PluginId, Plugins, PluginsConfig, TaskOptions};
use rwork_protocol::QueueName;
use rwork_sandbox::{Grants, Sandbox, SandboxConfig};
use rwork_worker::{SandboxExecutor, Shutdown, SystemClock, Worker, WorkerConfig, WorkerParts};

use super::{Rig, io, log};
use crate::guests::{guest, target_directory};

/// The node name of every rig's worker.
pub const NODE: &str = "rig@test";

/// What a rig's worker takes from.
const QUEUE: &str = "celery";

/// Two guests compute at a time, so that one that never ends leaves room for its neighbours.
const CONCURRENCY: usize = 2;

/// The files are whole before the rig looks at them: what changed longer ago than this is read at once.
const QUIET: Duration = Duration::from_millis(1);

/// How long a file that is cut off is waited for; nobody will mend it.
const PATIENCE: Duration = Duration::from_millis(10);

/// What a rig is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    files: BTreeMap<String, Content>,
    deployment: Deployment,
    sandbox: SandboxConfig,
    worker: WorkerConfig,
}

#[derive(Clone, Debug)]
enum Content {
    CopyOf(PathBuf),
    Bytes(Vec<u8>),
    Directory,
}

impl Setup {
    /// With these guests of the workspace, by package name.
    ///
    /// # Panics
    /// When they can't be built.
    pub fn new(guests: &[&str]) -> Self {
        let queue = QueueName::new(QUEUE).unwrap();
        let mut worker = WorkerConfig::new(NODE, vec![queue.clone()], queue);
        // Whoever ends a rig by force has seen what it wants to see.
        worker.stop_grace = Duration::ZERO;
        let files =
            guests.iter().map(|name| (format!("{name}.wasm"), Content::CopyOf(guest(name)))).collect();
        let sandbox = SandboxConfig::with_concurrency(CONCURRENCY);
        Self { files, deployment: Deployment::default(), sandbox, worker }
    }

    /// One more file in the plugin directory.
    #[must_use]
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), Content::Bytes(content.into()));
        self
    }

    /// A directory in the plugin directory.
    #[must_use]
    pub fn directory(mut self, name: &str) -> Self {
        self.files.insert(name.to_owned(), Content::Directory);
        self
    }

    /// What the operator grants to a plugin.
    ///
    /// # Panics
    /// When no plugin can have that name.
    #[must_use]
    pub fn grants(mut self, plugin: &str, grants: Grants) -> Self {
        self.deployment.grants.insert(PluginId::new(plugin).unwrap(), Arc::new(grants));
        self
    }

    /// What the operator says of a task, as `[tasks."name"]` in JSON; `"*"`: of every task.
    ///
    /// # Panics
    /// When these are no options.
    #[must_use]
    pub fn task(mut self, name: &str, options: &str) -> Self {
        self.deployment.tasks.insert(name.to_owned(), TaskOptions::from_json(options).unwrap());
        self
    }

    /// Changes the sandbox's settings.
    #[must_use]
    pub fn sandbox(mut self, change: impl FnOnce(&mut SandboxConfig)) -> Self {
        change(&mut self.sandbox);
        self
    }

    /// Changes the worker's settings; concurrency and places in flight are the sandbox's.
    #[must_use]
    pub fn worker(mut self, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        change(&mut self.worker);
        self
    }

    /// Starts everything. The runtime of the caller becomes the I/O runtime, so it has to be a multi-threaded one.
    ///
    /// # Panics
    /// When something can't be started. A plugin that is refused is in the report.
    pub async fn start(self) -> Rig {
        log::keep();
        let directory = tempfile::tempdir().unwrap();
        let mut config = PluginsConfig::new(plugins_directory(directory.path()), cache_directory());
        self.write(&config.directory);
        config.deployment = Arc::new(self.deployment);
        (config.quiet, config.patience) = (QUIET, PATIENCE);

        let sandbox = Sandbox::new(self.sandbox, io()).unwrap();
        let (plugins, report) = Plugins::open(config, sandbox.clone()).await.unwrap();
        let options = Options { path: directory.path().join("rwork.db"), ..Options::default() };
        let store = Arc::new(Embedded::open(options).unwrap());
        let mut worker = self.worker;
        (worker.concurrency, worker.max_in_flight) =
            (sandbox.config().concurrency, sandbox.config().max_in_flight);
        let queue = worker.default_queue.clone();
        let parts = WorkerParts {
            broker: store.clone(),
            backend: store.clone(),
            executor: SandboxExecutor { sandbox: sandbox.clone(), registry: plugins.registry().clone() },
            clock: Arc::new(SystemClock),
            rng: fastrand::Rng::new(),
            renewals: None,
            config: worker,
        };
        let shutdown = Shutdown::new();
        let worker = tokio::spawn(Worker::new(parts).unwrap().run(shutdown.clone()));
        let client = Client::new(store.clone(), store.clone());
        Rig { client, store, sandbox, plugins, report, queue, shutdown, worker, directory }
    }

    fn write(&self, directory: &Path) {
        fs::create_dir(directory).unwrap();
        for (name, content) in &self.files {
            let path = directory.join(name);
            match content {
                Content::CopyOf(file) => drop(fs::copy(file, path).unwrap()),
                Content::Bytes(bytes) => fs::write(path, bytes).unwrap(),
                Content::Directory => fs::create_dir(path).unwrap(),
            }
        }
    }
}

/// Where a rig's plugin files are.
pub(super) fn plugins_directory(rig: &Path) -> PathBuf {
    rig.join("plugins")
}

/// Shared by all rigs, so that each guest is compiled once: its files are named by their content, and two that write the
/// same one do not mind each other.
fn cache_directory() -> PathBuf {
    target_directory().join("rwork-tests-cache")
}
