//! The whole road from a file to a served task, with real components in a real sandbox.

mod guest;
mod load;
mod reload;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use rwork_sandbox::{Input, Invocation, JSON, NoHost, Outcome, RequestInfo, Sandbox, SandboxConfig, Stop};
use tokio::sync::broadcast;

use crate::{Deployment, LoadReport, Plugins, PluginsConfig, ReloadEvent, Task};

/// A directory of plugins and a cache, gone with the test.
struct Place {
    root: tempfile::TempDir,
    config: PluginsConfig,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let plugins = root.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        let mut config = PluginsConfig::new(plugins, root.path().join("cache"));
        // Events, and not times, decide these tests; short times only make them short.
        config.quiet = Duration::from_millis(10);
        config.patience = Duration::from_millis(50);
        Self { root, config }
    }

    fn deployment(&mut self, deployment: Deployment) {
        self.config.deployment = Arc::new(deployment);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.directory.join(name)
    }

    /// Writes in place.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes beside, then renames: the documented way.
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let beside = self.root.path().join("beside");
        fs::write(&beside, bytes).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    async fn open(&self) -> (Plugins, LoadReport) {
        Plugins::open(self.config.clone(), sandbox()).await.unwrap()
    }
}

/// One engine for all tests. Its timers run on a runtime of its own, so that a test may stop its clock.
fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<(tokio::runtime::Runtime, Sandbox)> = OnceLock::new();
    let make = || {
        let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // Machines that run tests are busy; the limit itself is the sandbox's to test.
        let describe_time = Duration::from_secs(10);
        let config = SandboxConfig { describe_time, ..SandboxConfig::with_concurrency(2) };
        let sandbox = Sandbox::new(config, io.handle().clone()).unwrap();
        (io, sandbox)
    };
    SANDBOX.get_or_init(make).1.clone()
}

/// Runs a task and returns its value.
async fn run(task: &Task) -> String {
    let sandbox = sandbox();
    let slot = sandbox.admit().await;
    let invocation = Invocation {
        task: task.name.as_str().to_owned(),
        id: "id".to_owned(),
        input: Input::Call {
            content_type: JSON.to_owned(),
            args: Bytes::from_static(b"[]"),
            kwargs: Bytes::from_static(b"{}"),
        },
        info: Arc::new(RequestInfo::default()),
        headers: Bytes::from_static(b"{}"),
        limits: task.options.limits_for(None, None),
        host: Arc::new(NoHost),
        stop: Stop::default(),
    };
    match sandbox.execute(slot, task.prepared.clone(), invocation).await.outcome {
        Outcome::Success(payload) => String::from_utf8(payload.data.to_vec()).unwrap(),
        other => panic!("expected a value, got {other:?}"),
    }
}

/// The next event of interest; others pass.
async fn until<T>(
    events: &mut broadcast::Receiver<ReloadEvent>,
    mut wanted: impl FnMut(&ReloadEvent) -> Option<T>,
) -> T {
    loop {
        if let Some(found) = wanted(&events.recv().await.unwrap()) {
            return found;
        }
    }
}

fn loaded(event: &ReloadEvent) -> Option<Arc<str>> {
    match event {
        ReloadEvent::Loaded { digest, .. } => Some(digest.clone()),
        _ => None,
    }
}

fn refused(event: &ReloadEvent) -> Option<String> {
    match event {
        ReloadEvent::Refused { error, .. } => Some(error.chain()),
        _ => None,
    }
}

fn freed(event: &ReloadEvent) -> Option<Arc<str>> {
    match event {
        ReloadEvent::Freed { digest, .. } => Some(digest.clone()),
        _ => None,
    }
}

fn unloaded(event: &ReloadEvent) -> Option<Arc<str>> {
    match event {
        ReloadEvent::Unloaded { digest, .. } => Some(digest.clone()),
        _ => None,
    }
}

/// Everything that was sent so far, one word each.
fn words(events: &mut broadcast::Receiver<ReloadEvent>) -> Vec<&'static str> {
    let mut words = Vec::new();
    while let Ok(event) = events.try_recv() {
        words.push(match event {
            ReloadEvent::Loaded { .. } => "loaded",
            ReloadEvent::Unchanged { .. } => "unchanged",
            ReloadEvent::Refused { .. } => "refused",
            ReloadEvent::Unloaded { .. } => "unloaded",
            ReloadEvent::Freed { .. } => "freed",
        });
    }
    words
}

fn file_names(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Vec<String> {
    paths.into_iter().map(|path| path.as_ref().file_name().unwrap().to_string_lossy().into_owned()).collect()
}
