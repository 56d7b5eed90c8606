//! What the loader is told: directories, times, and what the operator decided for plugins and tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rwork_sandbox::Grants;

use crate::id::PluginId;
use crate::options::{EffectiveOptions, TaskOptions, WorkerDefaults};
use crate::read::COMPONENT_BYTES_MAX;

/// A file that has not changed for so long is whole: writers that pause longer exist, and are met by the patience.
pub const QUIET_DEFAULT: Duration = Duration::from_millis(100);

/// How long a file that looks cut off, or that is gone, may stay so before it is believed.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(1);

/// How often the directory is looked through although no event came: events get lost when a queue overflows, on network
/// file systems, and behind symlinks.
pub const RESCAN_DEFAULT: Duration = Duration::from_secs(30);

/// What `Plugins` needs to know.
#[derive(Clone, Debug)]
pub struct PluginsConfig {
    /// Where plugins are.
    pub directory: PathBuf,
    /// Where compiled code is kept, in a private folder of its own.
    pub cache_directory: PathBuf,
    /// What the operator decided.
    pub deployment: Arc<Deployment>,
    /// Largest component, in bytes. Default 32 MiB.
    pub component_bytes_max: u64,
    /// A changed file is read when it has not changed for so long. Default 100 ms.
    pub quiet: Duration,
    /// A file that looks cut off or is gone is believed after so long. Default 1 s.
    pub patience: Duration,
    /// The directory is looked through at least so often. Default 30 s.
    pub rescan: Duration,
}

impl PluginsConfig {
    /// The defaults: nothing granted, nothing configured.
    pub fn new(directory: impl Into<PathBuf>, cache_directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            cache_directory: cache_directory.into(),
            deployment: Arc::default(),
            component_bytes_max: COMPONENT_BYTES_MAX,
            quiet: QUIET_DEFAULT,
            patience: PATIENCE_DEFAULT,
            rescan: RESCAN_DEFAULT,
        }
    }
}

/// The operator's word: what plugins may do, and what holds for tasks whatever their authors say.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// `[plugins.NAME.grants]`; a plugin that is not here is granted nothing.
    pub grants: BTreeMap<PluginId, Arc<Grants>>,
    /// `[tasks."name"]`; `"*"` holds for every task, below its own table.
    pub tasks: BTreeMap<String, TaskOptions>,
    /// The worker's own settings and the ceilings.
    pub defaults: WorkerDefaults,
}

impl Deployment {
    /// What a plugin is granted.
    pub fn grants(&self, plugin: &PluginId) -> Arc<Grants> {
        self.grants.get(plugin).cloned().unwrap_or_default()
    }

    /// The options that hold for a task; `lower` is what manifest and declaration say.
    pub fn options(&self, task: &str, lower: &TaskOptions) -> EffectiveOptions {
        let table = |name: &str| self.tasks.get(name).cloned().unwrap_or_default();
        table(task).over(&table("*")).over(lower).resolve(&self.defaults)
    }
}

/// The directory for compiled code that a user expects: `$XDG_CACHE_HOME/rwork`, else `~/.cache/rwork`. The environment
/// is the caller's to read; a relative `$XDG_CACHE_HOME` is ignored, as the XDG specification wants it.
pub fn default_cache_directory(xdg_cache_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let xdg = xdg_cache_home.filter(|path| path.is_absolute()).map(Path::to_owned);
    let base = xdg.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".cache")))?;
    Some(base.join("rwork"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_own_table_is_over_the_one_for_all() {
        let table = |json| TaskOptions::from_json(json).unwrap();
        let deployment = Deployment {
            tasks: [
                ("*".to_owned(), table(r#"{"priority":1,"track_started":true}"#)),
                ("math.add".to_owned(), table(r#"{"priority":2}"#)),
            ]
            .into(),
            ..Deployment::default()
        };
        let lower = table(r#"{"priority":3,"track_started":false,"cleanup":true}"#);
        let add = deployment.options("math.add", &lower);
        assert_eq!((add.priority, add.track_started, add.cleanup), (Some(2), true, true));
        assert_eq!(deployment.options("math.mul", &lower).priority, Some(1));
    }

    #[test]
    fn the_cache_is_where_users_expect_it() {
        let (xdg, home) = (Path::new("/x"), Path::new("/home/u"));
        assert_eq!(default_cache_directory(Some(xdg), Some(home)), Some("/x/rwork".into()));
        assert_eq!(default_cache_directory(None, Some(home)), Some("/home/u/.cache/rwork".into()));
        assert_eq!(
            default_cache_directory(Some(Path::new("x")), Some(home)),
            Some("/home/u/.cache/rwork".into())
        );
        assert_eq!(default_cache_directory(None, None), None);
    }
}
