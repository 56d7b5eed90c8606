//! From a file to a checked plugin: read → compile or map → link → describe → check.
//!
//! Each step is one function, and the first that fails ends it with one error. Nothing is registered here, and nothing
//! that serves is touched.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rwork_protocol::TaskName;
use rwork_sandbox::{Code, Description, NotAComponent, Prepared, Sandbox, TaskDeclaration};

use crate::cache::{Cache, Key};
use crate::config::Deployment;
use crate::discovery::Found;
use crate::error::Error;
use crate::options::{EffectiveOptions, TaskOptions};
use crate::quantity::ByteSize;
use crate::read::{ReadError, Source, read};
use crate::registry::{Plugin, Registry, Task};

/// Most tasks of one plugin: each is a row in every listing and a line in every heartbeat.
pub const TASKS_MAX: usize = 1_000;

/// Longest summary, SDK name or description that is kept, in characters: one line on a terminal, and some.
const TEXT_CHARS_MAX: usize = 200;

/// What loading needs; the same for every plugin.
#[derive(Clone, Debug)]
pub(crate) struct Loader {
    pub(crate) sandbox: Sandbox,
    pub(crate) cache: Cache,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) component_bytes_max: u64,
    pub(crate) registry: Registry,
}

/// A version that passed every check on its own.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) plugin: Arc<Plugin>,
    /// Two versions with the same mark are the same plugin: nothing is gained by a swap.
    pub(crate) mark: Mark,
    pub(crate) took: Duration,
}

/// What a version was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    digest: Arc<str>,
    manifest: String,
}

/// How loading went.
#[derive(Debug)]
pub(crate) enum Load {
    /// A new version.
    New(Loaded),
    /// What serves already.
    Same,
    /// The files changed meanwhile: look again later.
    Changed,
    /// Refused; `cut_off`: it looks like a copy that is not finished.
    Wrong { error: Error, cut_off: bool },
}

impl Loader {
    /// Loads one plugin. `serving` is the mark of the version in service.
    pub(crate) async fn load(&self, found: &Found, serving: Option<&Mark>) -> Load {
        match self.try_load(found, serving).await {
            Ok(Some(loaded)) => Load::New(loaded),
            Ok(None) => Load::Same,
            Err(ReadError::Changed) => Load::Changed,
            Err(ReadError::Wrong(error)) => Load::Wrong { cut_off: is_cut_off(&error), error },
        }
    }

    async fn try_load(&self, found: &Found, serving: Option<&Mark>) -> Result<Option<Loaded>, ReadError> {
        let started = Instant::now();
        let wasm = found.wasm.as_path();
        let (files, bytes_max) = (found.clone(), self.component_bytes_max);
        let source = blocking(wasm, move || read(&files, bytes_max)).await??;
        let mark = Mark { digest: source.digest.clone(), manifest: source.manifest_text.clone() };
        if serving == Some(&mark) {
            return Ok(None);
        }
        let loader = self.clone();
        let prepared = blocking(wasm, move || loader.prepare(source)).await?;
        let (source, prepared, from_cache) = prepared.map_err(ReadError::Wrong)?;
        let prepared = Arc::new(prepared);
        let description = self.sandbox.describe(&prepared).await.map_err(|error| {
            ReadError::Wrong(Error::Describe {
                plugin: source.id.clone(),
                path: wasm.to_owned(),
                source: error,
            })
        })?;
        let plugin = self.check(source, &prepared, &description, from_cache).map_err(ReadError::Wrong)?;
        Ok(Some(Loaded { plugin: Arc::new(plugin), mark, took: started.elapsed() }))
    }

    fn prepare(&self, source: Source) -> Result<(Source, Prepared, bool), Error> {
        let (code, from_cache) = self.code(&source)?;
        let linked = self.sandbox.link(&code, source.id.as_str(), self.deployment.grants(&source.id));
        match linked {
            Ok(prepared) => Ok((source, prepared, from_cache)),
            Err(error) => Err(Error::Link { plugin: source.id, path: source.found.wasm, source: error }),
        }
    }

    /// Compiled code, out of the cache when it is there and whole.
    fn code(&self, source: &Source) -> Result<(Code, bool), Error> {
        let key = Key::new(&source.digest, self.sandbox.compatibility_hash());
        if let Some(path) = self.cache.find(&key) {
            match self.sandbox.load_artefact(&path) {
                Ok(code) => return Ok((code, true)),
                Err(error) => self.cache.discard(&path, &error.to_string()),
            }
        }
        let failed = |error| Error::Compile { path: source.found.wasm.clone(), source: error };
        let artefact = self.sandbox.compile(&source.bytes).map_err(failed)?;
        let code = match self.cache.store(&key, &artefact) {
            Ok(path) => self.sandbox.load_artefact(&path),
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "compiled code can't be kept; it is compiled at every start"
                );
                self.sandbox.compile_in_memory(&source.bytes)
            }
        };
        code.map(|code| (code, false)).map_err(failed)
    }

    /// Checks what the plugin says of itself, and makes its tasks.
    fn check(
        &self,
        source: Source,
        prepared: &Arc<Prepared>,
        description: &Description,
        from_cache: bool,
    ) -> Result<Plugin, Error> {
        let path = source.found.wasm.as_path();
        let names = task_names(path, &description.tasks)?;
        if let Some(manifest) = &source.found.manifest {
            let declared: Vec<&str> = names.iter().map(TaskName::as_str).collect();
            source.manifest.check_tasks(manifest, &source.manifest_text, &declared)?;
        }
        let of_plugin = options(path, "itself", &description.options)?;
        let version = self.registry.version(&source.id, &source.digest);
        let mut tasks = Vec::with_capacity(names.len());
        for (name, declaration) in names.into_iter().zip(&description.tasks) {
            let own = options(path, &format!("task `{name}`"), &declaration.options)?.over(&of_plugin);
            let options = self.options(&source, prepared, &name, own)?;
            tasks.push(Arc::new(Task {
                name,
                options,
                plugin: source.id.clone(),
                digest: source.digest.clone(),
                prepared: prepared.clone(),
                summary: one_line(&declaration.summary),
                _version: version.clone(),
            }));
        }
        tasks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Plugin {
            id: source.id,
            description: source.manifest.description.as_deref().map(one_line),
            requests: source.manifest.requests,
            sdk: one_line(&description.sdk),
            digest: source.digest,
            size_bytes: source.bytes.len() as u64,
            from_cache,
            tasks,
            path: source.found.wasm,
            manifest: source.found.manifest,
            version,
        })
    }

    /// Lays the layers over each other, and checks what only shows when all are known.
    fn options(
        &self,
        source: &Source,
        prepared: &Prepared,
        name: &TaskName,
        declared: TaskOptions,
    ) -> Result<EffectiveOptions, Error> {
        let laid = source.manifest.options(name.as_str()).over(&declared);
        let mut options = self.deployment.options(name.as_str(), &laid);
        let (path, task) = (source.found.wasm.clone(), name.clone());
        let needed = prepared.initial_memory_bytes();
        if options.memory_bytes_max < needed {
            let cap = options.memory_bytes_max as u64;
            return Err(Error::MemoryTooSmall { path, task, cap, needed: needed as u64 });
        }
        if options.cleanup && !prepared.has_cleanup() {
            return Err(Error::NoCleanup { path, task });
        }
        // The pool's memories are no larger than this, whatever a task asks for.
        let available = self.sandbox.config().memory_bytes_max;
        if options.memory_bytes_max > available {
            let wanted = ByteSize(options.memory_bytes_max as u64);
            options.memory_bytes_max = available;
            let available = ByteSize(available as u64);
            tracing::warn!(%task, %wanted, %available, "memory cap lowered to what this worker has");
        }
        Ok(options)
    }
}

/// Runs one step where it may block.
async fn blocking<T: Send + 'static>(
    path: &Path,
    step: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadError> {
    let joined = tokio::task::spawn_blocking(step).await;
    joined.map_err(|_| ReadError::Wrong(Error::Panicked { path: path.to_owned() }))
}

fn task_names(path: &Path, tasks: &[TaskDeclaration]) -> Result<Vec<TaskName>, Error> {
    if tasks.is_empty() || tasks.len() > TASKS_MAX {
        return Err(Error::TaskCount { path: path.to_owned(), found: tasks.len(), max: TASKS_MAX });
    }
    let mut names: Vec<TaskName> = Vec::with_capacity(tasks.len());
    for task in tasks {
        let name =
            TaskName::new(&task.name).map_err(|source| Error::TaskName { path: path.to_owned(), source })?;
        names.push(name);
    }
    let mut sorted: Vec<&TaskName> = names.iter().collect();
    sorted.sort();
    match sorted.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    }) {
        Some(task) => Err(Error::TaskTwice { path: path.to_owned(), task: task.clone() }),
        None => Ok(names),
    }
}

fn options(path: &Path, what: &str, document: &str) -> Result<TaskOptions, Error> {
    TaskOptions::from_json(document).map_err(|message| Error::Options {
        path: path.to_owned(),
        what: what.to_owned(),
        message,
    })
}

/// Text of a guest, fit for one line of a terminal or a log.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn is_cut_off(error: &Error) -> bool {
    let Error::Compile { source: rwork_sandbox::Error::NotAComponent(what), .. } = error else {
        return false;
    };
    matches!(what, NotAComponent::Empty | NotAComponent::Truncated { .. })
}
