//! What is served at this moment: task names and the plugin version that each belongs to.
//!
//! One reload pass replaces the whole [`Snapshot`]; readers never wait. Who looked a task up keeps the version that it
//! found for as long as it holds the [`Task`], whatever is swapped meanwhile.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use rwork_protocol::TaskName;
use rwork_sandbox::Prepared;
use tokio::sync::broadcast;

use crate::error::Error;
use crate::event::ReloadEvent;
use crate::id::PluginId;
use crate::manifest::Requests;
use crate::options::EffectiveOptions;

/// One task of one plugin version. Hold it until the invocation has ended: the version is freed with its last task.
#[derive(Debug)]
pub struct Task {
    /// Registered name.
    pub name: TaskName,
    /// Options of every layer, resolved.
    pub options: EffectiveOptions,
    /// The plugin that it belongs to.
    pub plugin: PluginId,
    /// Digest of the component, `sha256:…`: it goes with every result, event and trace.
    pub digest: Arc<str>,
    /// What the sandbox runs.
    pub prepared: Arc<Prepared>,
    /// One line for people.
    pub summary: String,
    /// Freed, and counted, with the last task that holds it.
    pub(crate) _version: Arc<Version>,
}

/// One loaded version of a plugin.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its name.
    pub id: PluginId,
    /// The component's file.
    pub path: PathBuf,
    /// The manifest's file.
    pub manifest: Option<PathBuf>,
    /// From the manifest.
    pub description: Option<String>,
    /// What the manifest asks for.
    pub requests: Option<Requests>,
    /// SDK that built it, as it says itself.
    pub sdk: String,
    /// Digest of the component, `sha256:…`.
    pub digest: Arc<str>,
    /// Size of the component, in bytes.
    pub size_bytes: u64,
    /// Whether its code came out of the cache.
    pub from_cache: bool,
    /// Its tasks, by name.
    pub tasks: Vec<Arc<Task>>,
    pub(crate) version: Arc<Version>,
}

/// One component file and how it fares.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// The file.
    pub path: PathBuf,
    /// The version that serves; none: nothing was ever loaded from this file.
    pub serving: Option<Arc<Plugin>>,
    /// Why the file as it is now is not what serves. With a version in service, the plugin is *degraded*.
    pub problem: Option<Arc<Error>>,
}

impl PluginStatus {
    /// An older version serves, since what is in the file now was refused.
    pub fn is_degraded(&self) -> bool {
        self.serving.is_some() && self.problem.is_some()
    }
}

/// Everything that is served at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every component file, by path.
    pub plugins: Vec<PluginStatus>,
    pub(crate) tasks: HashMap<TaskName, Arc<Task>>,
}

impl Snapshot {
    pub(crate) fn new(plugins: Vec<PluginStatus>) -> Self {
        let serving = plugins.iter().filter_map(|status| status.serving.as_ref());
        let tasks =
            serving.flat_map(|plugin| &plugin.tasks).map(|task| (task.name.clone(), task.clone())).collect();
        Self { plugins, tasks }
    }

    /// Every task, in no particular order.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }
}

/// The one place where tasks are looked up. Cheap to clone; all clones show the same.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Written by the reload pass, read by everyone.
    snapshot: Arc<ArcSwap<Snapshot>>,
    alive: Arc<Alive>,
}

impl Registry {
    pub(crate) fn new(events: broadcast::Sender<ReloadEvent>) -> Self {
        let alive = Arc::new(Alive { count: AtomicUsize::new(0), events });
        Self { snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())), alive }
    }

    /// The task of that name, with the version that serves now. Lock-free.
    pub fn lookup(&self, task: &str) -> Option<Arc<Task>> {
        self.snapshot.load().tasks.get(task).cloned()
    }

    /// Everything that is served now, for listings.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// How many plugin versions are in memory: those that serve, and those that an invocation still holds.
    pub fn versions_alive(&self) -> usize {
        self.alive.count.load(Ordering::Acquire)
    }

    pub(crate) fn swap(&self, snapshot: Snapshot) {
        for plugin in snapshot.plugins.iter().filter_map(|status| status.serving.as_ref()) {
            plugin.version.go_live();
        }
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Watches over one version, from the moment it goes live until it is dropped.
    pub(crate) fn version(&self, plugin: &PluginId, digest: &Arc<str>) -> Arc<Version> {
        Arc::new(Version {
            plugin: plugin.clone(),
            digest: digest.clone(),
            live: AtomicBool::new(false),
            alive: self.alive.clone(),
        })
    }
}

/// Shared by the registry and every version.
#[derive(Debug)]
struct Alive {
    count: AtomicUsize,
    events: broadcast::Sender<ReloadEvent>,
}

/// Held by every task of one version, and by the snapshots that show it.
#[derive(Debug)]
pub(crate) struct Version {
    plugin: PluginId,
    digest: Arc<str>,
    /// A version that is refused at the last step was never alive.
    live: AtomicBool,
    alive: Arc<Alive>,
}

impl Version {
    fn go_live(&self) {
        if !self.live.swap(true, Ordering::AcqRel) {
            self.alive.count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        if !*self.live.get_mut() {
            return;
        }
        self.alive.count.fetch_sub(1, Ordering::AcqRel);
        let freed = ReloadEvent::Freed { plugin: self.plugin.clone(), digest: self.digest.clone() };
        freed.log();
        // Nobody listening is no fault.
        let _ = self.alive.events.send(freed);
    }
}
