//! One pass over the plugin directory: look, wait for what is not quiet, load what is, swap once.
//!
//! One owner at a time holds [`State`]. Everything that takes time happens before anything is changed; the changes
//! themselves are made without a pause, so a pass may be dropped at any await.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rwork_protocol::TaskName;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::config::PluginsConfig;
use crate::conflict::{self, Claim};
use crate::discovery::{Found, scan};
use crate::error::Error;
use crate::event::ReloadEvent;
use crate::load::{Load, Loaded, Loader, Mark};
use crate::registry::{Plugin, PluginStatus, Registry, Snapshot};
use crate::stamp::{Quiet, Stamps};

/// The shortest quiet time.
const QUIET_MIN: Duration = Duration::from_millis(1);

/// What is known of every component file. Owned by whoever runs a pass.
#[derive(Debug)]
pub(crate) struct State {
    config: PluginsConfig,
    loader: Loader,
    registry: Registry,
    events: broadcast::Sender<ReloadEvent>,
    files: BTreeMap<PathBuf, Entry>,
    /// The directory's own trouble, so that it is reported once.
    trouble: Option<String>,
}

/// One component file.
#[derive(Debug)]
struct Entry {
    file: File,
    quiet: Quiet,
    /// How long it has to be quiet before it is looked into.
    wanted: Duration,
    /// It was looked into since it changed last.
    judged: bool,
    serving: Option<(Arc<Plugin>, Mark)>,
    problem: Option<Arc<Error>>,
}

/// What the last look found under a path.
#[derive(Debug, PartialEq, Eq)]
enum File {
    /// A component, perhaps with a manifest.
    Here(Found),
    /// Something that can't be one, or a component that can't be told its manifest.
    Wrong,
    /// Nothing.
    Gone,
}

/// What a pass leaves to do.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// When something that was not quiet may be.
    pub(crate) next: Option<Instant>,
    /// What to watch.
    pub(crate) folders: Vec<PathBuf>,
}

/// What a pass found out, before anything is changed.
#[derive(Debug, Default)]
struct Findings {
    /// By path, as the conflict rules want it.
    loaded: Vec<(PathBuf, Loaded)>,
    same: Vec<PathBuf>,
    refused: Vec<(PathBuf, Error)>,
    gone: Vec<PathBuf>,
}

impl Findings {
    fn is_empty(&self) -> bool {
        self.loaded.is_empty() && self.same.is_empty() && self.refused.is_empty() && self.gone.is_empty()
    }
}

impl State {
    pub(crate) fn new(config: PluginsConfig, loader: Loader, events: broadcast::Sender<ReloadEvent>) -> Self {
        let registry = loader.registry.clone();
        // Without a pause between two looks at a file that changes all the time, a pass would never end.
        let config = PluginsConfig { quiet: config.quiet.max(QUIET_MIN), ..config };
        Self { config, loader, registry, events, files: BTreeMap::new(), trouble: None }
    }

    /// Looks through the directory once.
    ///
    /// # Errors
    /// The directory itself can't be read; what serves goes on serving.
    pub(crate) async fn pass(&mut self) -> Result<Pass, Error> {
        let folders = self.look().await?;
        let mut pass = Pass { next: None, folders };
        loop {
            let (ready, next) = self.ready();
            pass.next = next;
            if ready.is_empty() {
                return Ok(pass);
            }
            let findings = self.load(ready).await;
            self.apply(findings);
        }
    }

    /// The same, reporting trouble with the directory once, for the watching loop.
    pub(crate) async fn supervised_pass(&mut self) -> Pass {
        match self.pass().await {
            Ok(pass) => {
                if self.trouble.take().is_some() {
                    tracing::info!(path = %self.config.directory.display(), "plugin directory can be read again");
                }
                pass
            }
            Err(error) => {
                if self.trouble.replace(error.chain()) != Some(error.chain()) {
                    let path = self.config.directory.clone();
                    self.report(ReloadEvent::Refused { path, error: Arc::new(error), serving: None });
                }
                Pass::default()
            }
        }
    }

    /// Scans the directory and notes what changed.
    async fn look(&mut self) -> Result<Vec<PathBuf>, Error> {
        let directory = self.config.directory.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let scan = scan(&directory)?;
            let stamps: Vec<Stamps> = scan.found.iter().map(Stamps::read).collect();
            Ok((scan, stamps))
        });
        let panicked = |_| Error::Panicked { path: self.config.directory.clone() };
        let (scan, stamps) = looked.await.map_err(panicked)??;
        let now = Instant::now();
        let found = scan.found.iter().map(|found| found.wasm.clone());
        let seen: BTreeSet<PathBuf> =
            found.chain(scan.problems.iter().map(|(path, _)| path.clone())).collect();
        for (found, stamps) in scan.found.into_iter().zip(stamps) {
            self.note(found, stamps, now);
        }
        for (path, _) in &scan.problems {
            self.entry(path).file = File::Wrong;
        }
        self.apply(Findings { refused: scan.problems, ..Findings::default() });
        for (_, entry) in self.files.iter_mut().filter(|(path, _)| !seen.contains(*path)) {
            entry.note_gone(self.config.patience, now);
        }
        Ok(scan.folders)
    }

    fn note(&mut self, found: Found, stamps: Stamps, now: Instant) {
        let quiet = self.config.quiet;
        let entry = self.entry(&found.wasm);
        let file = File::Here(found);
        if entry.quiet.observe(stamps, now) || entry.file != file {
            (entry.file, entry.wanted, entry.judged) = (file, quiet, false);
        }
    }

    fn entry(&mut self, path: &Path) -> &mut Entry {
        let wanted = self.config.quiet;
        self.files.entry(path.to_owned()).or_insert_with(|| Entry {
            file: File::Gone,
            quiet: Quiet::new(Stamps::default(), Instant::now()),
            wanted,
            judged: false,
            serving: None,
            problem: None,
        })
    }

    /// The files to look into now, and when the next one may be.
    fn ready(&self) -> (Vec<PathBuf>, Option<Instant>) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let (mut ready, mut next) = (Vec::new(), None);
        for (path, entry) in self.files.iter().filter(|(_, entry)| !entry.judged) {
            match entry.quiet.missing(entry.wanted, now, wall) {
                Duration::ZERO => ready.push(path.clone()),
                missing => next = Some(next.map_or(now + missing, |next: Instant| next.min(now + missing))),
            }
        }
        (ready, next)
    }

    /// Loads every file that is ready, one after the other. Changes nothing but what is known of unfinished copies.
    async fn load(&mut self, ready: Vec<PathBuf>) -> Findings {
        let mut findings = Findings::default();
        for path in ready {
            let Some(entry) = self.files.get_mut(&path) else { continue };
            let found = match &entry.file {
                File::Here(found) => found,
                File::Wrong => continue,
                File::Gone => {
                    findings.gone.push(path);
                    continue;
                }
            };
            let serving = entry.serving.as_ref().map(|(_, mark)| mark);
            match self.loader.load(found, serving).await {
                Load::New(loaded) => findings.loaded.push((path, loaded)),
                Load::Same => findings.same.push(path),
                Load::Changed => entry.quiet = Quiet::new(Stamps::default(), Instant::now()),
                // A copy that stalled is given more time before it is called broken.
                Load::Wrong { cut_off: true, .. } if entry.wanted < self.config.patience => {
                    entry.wanted = self.config.patience;
                }
                Load::Wrong { error, .. } => findings.refused.push((path, error)),
            }
        }
        findings
    }

    /// Settles who gets which name, and puts everything into force with one swap.
    fn apply(&mut self, mut findings: Findings) {
        if findings.is_empty() {
            return;
        }
        self.settle_names(&mut findings);
        let mut events = Vec::new();
        for (path, loaded) in findings.loaded {
            self.evict_gone_owners(&path, &loaded.plugin, &mut events);
            events.extend(self.files.get_mut(&path).map(|entry| entry.serve(loaded)));
        }
        for path in findings.same {
            events.extend(self.files.get_mut(&path).and_then(Entry::keep));
        }
        for (path, error) in findings.refused {
            events.extend(self.refuse(path, error));
        }
        for path in findings.gone {
            events.extend(self.files.remove(&path).and_then(|entry| entry.unload(path)));
        }
        if events.iter().any(frees_names) {
            self.retry_conflicts();
        }
        // Held until all is reported, so that nothing is freed before what took its place is known.
        let _old = self.registry.snapshot();
        self.registry.swap(self.snapshot());
        events.into_iter().for_each(|event| self.report(event));
    }

    /// Moves the candidates whose names are taken from loaded to refused.
    fn settle_names(&self, findings: &mut Findings) {
        let candidates: Vec<Names> =
            findings.loaded.iter().map(|(_, loaded)| Names::of(&loaded.plugin)).collect();
        let present = self.files.values().filter(|entry| entry.file != File::Gone);
        let serving: Vec<Names> =
            present.filter_map(|entry| entry.serving.as_ref()).map(|(plugin, _)| Names::of(plugin)).collect();
        // A file that is gone for good gives up its names at the end of this very pass.
        let serving: Vec<Claim<'_>> = serving
            .iter()
            .map(Names::claim)
            .filter(|claim| !findings.gone.iter().any(|gone| gone == claim.path))
            .collect();
        let candidates: Vec<Claim<'_>> = candidates.iter().map(Names::claim).collect();
        for (index, error) in conflict::refused(&serving, &candidates).into_iter().rev() {
            let (path, _) = findings.loaded.remove(index);
            findings.refused.push((path, error));
        }
    }

    /// A file that was moved or renamed is a new file with the names of one that is gone, and need not wait for it.
    fn evict_gone_owners(&mut self, path: &Path, plugin: &Plugin, events: &mut Vec<ReloadEvent>) {
        let names: BTreeSet<&TaskName> = plugin.tasks.iter().map(|task| &task.name).collect();
        let owners: Vec<PathBuf> = self
            .files
            .iter()
            .filter(|(other, entry)| {
                *other != path && entry.file == File::Gone && entry.holds(&plugin.id, &names)
            })
            .map(|(other, _)| other.clone())
            .collect();
        for owner in owners {
            events.extend(self.files.remove(&owner).and_then(|entry| entry.unload(owner)));
        }
    }

    /// Notes why a file can't be used. The same reason as before is not news.
    fn refuse(&mut self, path: PathBuf, error: Error) -> Option<ReloadEvent> {
        let entry = self.entry(&path);
        entry.judged = true;
        let known = entry.problem.as_ref().is_some_and(|known| known.chain() == error.chain());
        let error = Arc::new(error);
        entry.problem = Some(error.clone());
        let serving = entry.serving.as_ref().map(|(plugin, _)| plugin.digest.clone());
        (!known).then_some(ReloadEvent::Refused { path, error, serving })
    }

    /// Names may have become free: who was refused for one is asked again.
    fn retry_conflicts(&mut self) {
        for entry in self.files.values_mut() {
            if entry.problem.as_ref().is_some_and(|problem| problem.is_conflict()) {
                entry.judged = false;
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let status = |(path, entry): (&PathBuf, &Entry)| PluginStatus {
            path: path.clone(),
            serving: entry.serving.as_ref().map(|(plugin, _)| plugin.clone()),
            problem: entry.problem.clone(),
        };
        Snapshot::new(self.files.iter().map(status).collect())
    }

    fn report(&self, event: ReloadEvent) {
        event.log();
        // Nobody listening is no fault.
        let _ = self.events.send(event);
    }
}

impl Entry {
    /// The file is not there. A tool may be about to put a new one in its place, so it is believed only after a while.
    fn note_gone(&mut self, patience: Duration, now: Instant) {
        if self.file != File::Gone {
            self.quiet = Quiet::new(Stamps::default(), now);
            (self.file, self.wanted, self.judged) = (File::Gone, patience, false);
        }
    }

    fn serve(&mut self, loaded: Loaded) -> ReloadEvent {
        let Loaded { plugin, mark, took } = loaded;
        let old = self.serving.replace((plugin.clone(), mark)).map(|(old, _)| old);
        (self.problem, self.judged) = (None, true);
        let names: BTreeSet<&TaskName> = plugin.tasks.iter().map(|task| &task.name).collect();
        let removed =
            old.iter().flat_map(|old| &old.tasks).map(|task| &task.name).filter(|name| !names.contains(name));
        ReloadEvent::Loaded {
            removed_tasks: removed.cloned().collect(),
            replaced: old.as_ref().map(|old| old.digest.clone()),
            tasks: plugin.tasks.len(),
            from_cache: plugin.from_cache,
            plugin: plugin.id.clone(),
            path: plugin.path.clone(),
            digest: plugin.digest.clone(),
            took,
        }
    }

    fn keep(&mut self) -> Option<ReloadEvent> {
        (self.problem, self.judged) = (None, true);
        let (plugin, _) = self.serving.as_ref()?;
        Some(ReloadEvent::Unchanged {
            plugin: plugin.id.clone(),
            path: plugin.path.clone(),
            digest: plugin.digest.clone(),
        })
    }

    fn unload(self, path: PathBuf) -> Option<ReloadEvent> {
        let (plugin, _) = self.serving?;
        Some(ReloadEvent::Unloaded { plugin: plugin.id.clone(), path, digest: plugin.digest.clone() })
    }

    fn holds(&self, id: &crate::PluginId, names: &BTreeSet<&TaskName>) -> bool {
        let holds =
            |plugin: &Plugin| plugin.id == *id || plugin.tasks.iter().any(|task| names.contains(&task.name));
        self.serving.as_ref().is_some_and(|(plugin, _)| holds(plugin))
    }
}

/// A plugin's claim on names, with the list that a [`Claim`] borrows.
struct Names {
    plugin: Arc<Plugin>,
    tasks: Vec<TaskName>,
}

impl Names {
    fn of(plugin: &Arc<Plugin>) -> Self {
        Self { plugin: plugin.clone(), tasks: plugin.tasks.iter().map(|task| task.name.clone()).collect() }
    }

    fn claim(&self) -> Claim<'_> {
        Claim { path: &self.plugin.path, id: &self.plugin.id, tasks: &self.tasks }
    }
}

fn frees_names(event: &ReloadEvent) -> bool {
    matches!(event, ReloadEvent::Unloaded { .. } | ReloadEvent::Loaded { replaced: Some(_), .. })
}
