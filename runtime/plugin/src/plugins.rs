//! The plugin directory as its users see it: open it, look tasks up, watch it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rwork_sandbox::Sandbox;
use tokio::sync::{Mutex, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::config::PluginsConfig;
use crate::discovery::{beside, not_a_file};
use crate::error::Error;
use crate::event::{EVENTS_CAPACITY, ReloadEvent};
use crate::load::{Load, Loader};
use crate::registry::{Plugin, Registry};
use crate::reload::{Pass, State};
use crate::watch::Watcher;

/// How long the start waits for files that are being written; what takes longer goes live when it is whole.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Events come in bursts: one look for all of a burst, and never more than fifty looks a second.
const COALESCE: Duration = Duration::from_millis(20);

/// Every plugin of one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plugins {
    registry: Registry,
    events: broadcast::Sender<ReloadEvent>,
    rescan: Duration,
    /// A pass holds it from its first look to its swap: an async lock, since loading takes its time. Nothing on the way
    /// of a message ever takes it.
    state: Arc<Mutex<State>>,
}

/// How the start went.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// What serves, by path.
    pub loaded: Vec<Arc<Plugin>>,
    /// What can't be used, and why, by path.
    pub refused: Vec<(PathBuf, Arc<Error>)>,
}

impl Plugins {
    /// Loads what the directory holds. A plugin that can't be used is in the report and hinders no other.
    ///
    /// # Errors
    /// The plugin directory can't be read, or the cache directory can't be used.
    pub async fn open(config: PluginsConfig, sandbox: Sandbox) -> Result<(Self, LoadReport), Error> {
        let (events, _) = broadcast::channel(EVENTS_CAPACITY);
        let registry = Registry::new(events.clone());
        let loader = loader(&config, sandbox, registry.clone()).await?;
        let rescan = config.rescan;
        let mut state = State::new(config, loader, events.clone());
        let patient_until = Instant::now() + SETTLE_MAX;
        while let Some(next) = state.pass().await?.next.filter(|next| *next < patient_until) {
            tokio::time::sleep_until(next).await;
        }
        let plugins = Self { registry, events, rescan, state: Arc::new(Mutex::new(state)) };
        let report = plugins.report();
        Ok((plugins, report))
    }

    /// Loads one file as a worker would, and serves it to nobody (`rwork plugins check`).
    ///
    /// # Errors
    /// Whatever a worker would refuse it for.
    pub async fn check(config: &PluginsConfig, sandbox: Sandbox, wasm: &Path) -> Result<Arc<Plugin>, Error> {
        let (events, _) = broadcast::channel(1);
        let loader = loader(config, sandbox, Registry::new(events)).await?;
        let kind = tokio::fs::metadata(wasm).await;
        let kind = kind.map_err(|source| Error::Unreadable { path: wasm.to_owned(), source })?;
        if !kind.is_file() {
            return Err(not_a_file(wasm, &kind));
        }
        let changed = || {
            let source = std::io::Error::new(std::io::ErrorKind::Interrupted, "it is being written");
            Error::Unreadable { path: wasm.to_owned(), source }
        };
        match loader.load(&beside(wasm), None).await {
            Load::New(loaded) => Ok(loaded.plugin),
            Load::Wrong { error, .. } => Err(error),
            Load::Same | Load::Changed => Err(changed()),
        }
    }

    /// Where tasks are looked up.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What happens from now on. A listener that falls behind by thousands misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<ReloadEvent> {
        self.events.subscribe()
    }

    /// Looks through the directory now, and returns when everything that is quiet is loaded or refused.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not swapped in is loaded by the next look.
    pub async fn rescan(&self) {
        self.state.lock().await.supervised_pass().await;
    }

    /// Keeps what serves in step with the directory, until the token is cancelled.
    ///
    /// # Cancel safety
    /// Cancel safe, like [`Plugins::rescan`].
    pub async fn watch(&self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.watch_for_ever()).await;
    }

    async fn watch_for_ever(&self) {
        let mut watcher = Watcher::new();
        loop {
            let Pass { next, folders } = self.state.lock().await.supervised_pass().await;
            // What happened in a new folder before it was watched was not seen: look again at once.
            if watcher.follow(&folders) {
                continue;
            }
            let rescan = Instant::now() + watcher.patience(self.rescan);
            tokio::select! {
                () = watcher.changed() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep_until(next.map_or(rescan, |next| next.min(rescan))) => {}
            }
        }
    }

    fn report(&self) -> LoadReport {
        let mut report = LoadReport::default();
        for status in &self.registry.snapshot().plugins {
            report.loaded.extend(status.serving.clone());
            report.refused.extend(status.problem.clone().map(|problem| (status.path.clone(), problem)));
        }
        report
    }
}

async fn loader(config: &PluginsConfig, sandbox: Sandbox, registry: Registry) -> Result<Loader, Error> {
    let directory = config.cache_directory.clone();
    let panicked = |_| Error::Panicked { path: config.cache_directory.clone() };
    let cache = tokio::task::spawn_blocking(move || Cache::open(&directory)).await.map_err(panicked)??;
    Ok(Loader {
        sandbox,
        cache,
        deployment: config.deployment.clone(),
        component_bytes_max: config.component_bytes_max,
        registry,
    })
}
