//! What happened to plugins, as a stream: for the command line, for worker events, and for tests, which wait for these
//! and never for time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rwork_protocol::TaskName;

use crate::error::Error;
use crate::id::PluginId;

/// Events that a slow listener may fall behind: a reload of every plugin of a full directory, and some.
pub(crate) const EVENTS_CAPACITY: usize = 4_096;

/// One thing that happened to one plugin.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReloadEvent {
    /// A version went live. It was swapped in before this is sent.
    Loaded {
        /// The plugin.
        plugin: PluginId,
        /// The component's file.
        path: PathBuf,
        /// Digest of the component.
        digest: Arc<str>,
        /// Digest of the version that served until now.
        replaced: Option<Arc<str>>,
        /// How many tasks it has.
        tasks: usize,
        /// Tasks that the replaced version had and this one doesn't.
        removed_tasks: Vec<TaskName>,
        /// Whether its code came out of the cache.
        from_cache: bool,
        /// From reading the file to the last check.
        took: Duration,
    },
    /// The file was written anew with what serves already.
    Unchanged {
        /// The plugin.
        plugin: PluginId,
        /// The component's file.
        path: PathBuf,
        /// Digest of the component.
        digest: Arc<str>,
    },
    /// A file can't be used; what served goes on serving.
    Refused {
        /// The file, or the plugin directory.
        path: PathBuf,
        /// Why.
        error: Arc<Error>,
        /// Digest of the version that goes on serving.
        serving: Option<Arc<str>>,
    },
    /// The file is gone; the plugin takes no new work.
    Unloaded {
        /// The plugin.
        plugin: PluginId,
        /// The file that is gone.
        path: PathBuf,
        /// Digest of the version that served.
        digest: Arc<str>,
    },
    /// The last invocation of a version that no longer serves has ended, and its code is freed.
    Freed {
        /// The plugin.
        plugin: PluginId,
        /// Digest of the version.
        digest: Arc<str>,
    },
}

impl ReloadEvent {
    /// One line in the log. Freeing is routine; a refusal is what an operator must see.
    pub(crate) fn log(&self) {
        match self {
            Self::Loaded { plugin, path, digest, replaced, tasks, removed_tasks, from_cache, took } => {
                let path = path.display();
                let took_ms = took.as_secs_f64() * 1_000.0;
                match replaced {
                    None => {
                        tracing::info!(%plugin, %path, %digest, tasks, from_cache, took_ms, "plugin loaded")
                    }
                    Some(old) => {
                        tracing::info!(%plugin, %path, %digest, %old, tasks, from_cache, took_ms, "plugin reloaded");
                    }
                }
                if !removed_tasks.is_empty() {
                    let tasks = removed_tasks.iter().map(TaskName::as_str).collect::<Vec<_>>().join(", ");
                    tracing::warn!(%plugin, tasks, "tasks are gone with the new version; messages for them are refused");
                }
            }
            Self::Unchanged { plugin, digest, .. } => {
                tracing::debug!(%plugin, %digest, "plugin file written again with the same content");
            }
            Self::Refused { path, error, serving, .. } => tracing::error!(
                path = %path.display(),
                error = error.chain(),
                hint = error.hint(),
                serving = serving.as_deref(),
                "plugin refused"
            ),
            Self::Unloaded { plugin, path, .. } => {
                tracing::info!(%plugin, path = %path.display(), "plugin unloaded, its file is gone");
            }
            Self::Freed { plugin, digest } => tracing::debug!(%plugin, %digest, "plugin version freed"),
        }
    }
}
