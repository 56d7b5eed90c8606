//! Everything that can be wrong with a plugin, each with what was expected, what was found and the line to change.

use std::io;
use std::path::{Path, PathBuf};

use rwork_protocol::{InvalidName, TaskName};

use crate::discovery::PLUGINS_MAX;
use crate::id::{InvalidPluginId, PluginId};
use crate::quantity::ByteSize;

/// Why a plugin, or the plugin directory, can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plugin directory itself.
    #[error("failed to read the plugin directory `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More entries than anyone means to load.
    #[error("expected at most {PLUGINS_MAX} plugins in `{}`, found more", directory.display())]
    TooMany {
        /// The directory.
        directory: PathBuf,
    },
    /// The cache directory.
    #[error("failed to use the cache directory `{}`", path.display())]
    Cache {
        /// The directory or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else could put native code there.
    #[error(
        "expected the cache directory `{}` to be a directory that only this user can enter, found {found}",
        path.display()
    )]
    CacheNotPrivate {
        /// The directory.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// A directory, a pipe, … by the name of a component.
    #[error("expected `{}` to be a file, found {found}", path.display())]
    NotAFile {
        /// It.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file that can't be opened or read.
    #[error("`{}` can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A component or a manifest over its size limit.
    #[error("expected `{}` to be at most {}, found {}", path.display(), ByteSize(*max), ByteSize(*size))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        max: u64,
    },
    /// Both kinds of manifest for one component.
    #[error("`{}` has two manifests, `{}` and `{}`", path.display(), own.display(), shared.display())]
    TwoManifests {
        /// The component.
        path: PathBuf,
        /// `NAME.toml`.
        own: PathBuf,
        /// `plugin.toml`.
        shared: PathBuf,
    },
    /// One `plugin.toml` for several components.
    #[error("`{}` stands beside several components, `{}` among them", shared.display(), path.display())]
    SharedManifest {
        /// The component.
        path: PathBuf,
        /// `plugin.toml`.
        shared: PathBuf,
    },
    /// A manifest that doesn't say what a manifest may say.
    #[error("`{}` line {line}: {message}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Expected and found.
        message: String,
    },
    /// A manifest that tries to grant.
    #[error("`{}` line {line}: a manifest can't grant anything", path.display())]
    ManifestGrants {
        /// The manifest.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// No usable name.
    #[error("`{}` gives no usable plugin name", path.display())]
    Name {
        /// The component.
        path: PathBuf,
        /// Why.
        source: InvalidPluginId,
    },
    /// The sandbox doesn't take it for a component, or can't compile it.
    #[error("failed to compile `{}`", path.display())]
    Compile {
        /// The component.
        path: PathBuf,
        /// Why.
        source: rwork_sandbox::Error,
    },
    /// World version or grants.
    #[error("failed to link plugin `{plugin}` (`{}`)", path.display())]
    Link {
        /// Its name.
        plugin: PluginId,
        /// The component.
        path: PathBuf,
        /// Why.
        source: rwork_sandbox::Error,
    },
    /// It can't say what it is.
    #[error("failed to ask plugin `{plugin}` (`{}`) for its tasks", path.display())]
    Describe {
        /// Its name.
        plugin: PluginId,
        /// The component.
        path: PathBuf,
        /// Why.
        source: rwork_sandbox::Error,
    },
    /// No task, or too many.
    #[error("expected `{}` to declare 1 to {max} tasks, found {found}", path.display())]
    TaskCount {
        /// The component.
        path: PathBuf,
        /// How many it declares.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A task name that no message can carry.
    #[error("`{}` declares a task by a name that can't be used", path.display())]
    TaskName {
        /// The component.
        path: PathBuf,
        /// Why.
        source: InvalidName,
    },
    /// One name twice in one plugin.
    #[error("`{}` declares task `{task}` twice", path.display())]
    TaskTwice {
        /// The component.
        path: PathBuf,
        /// The name.
        task: TaskName,
    },
    /// Options that the plugin declares in code and that can't be read.
    #[error("`{}` declares {what} with options that can't be used: {message}", path.display())]
    Options {
        /// The component.
        path: PathBuf,
        /// The task, or the plugin itself.
        what: String,
        /// Expected and found.
        message: String,
    },
    /// A memory cap under which not even the first instruction runs.
    #[error(
        "expected `memory` of task `{task}` to be at least {}, which `{}` takes from the start, got {}",
        ByteSize(*needed),
        path.display(),
        ByteSize(*cap)
    )]
    MemoryTooSmall {
        /// The component.
        path: PathBuf,
        /// The task.
        task: TaskName,
        /// The cap, in bytes.
        cap: u64,
        /// What the component takes, in bytes.
        needed: u64,
    },
    /// A task asks for a hook that the component doesn't have.
    #[error("task `{task}` sets `cleanup`, but `{}` exports no cleanup hook", path.display())]
    NoCleanup {
        /// The component.
        path: PathBuf,
        /// The task.
        task: TaskName,
    },
    /// One task name in two plugins.
    #[error(
        "task `{task}` is in two plugins: `{plugin}` (`{}`) and `{other}` (`{}`), which has it already",
        path.display(),
        other_path.display()
    )]
    SameTask {
        /// The name.
        task: TaskName,
        /// The plugin that is refused.
        plugin: PluginId,
        /// Its component.
        path: PathBuf,
        /// The plugin that keeps the name.
        other: PluginId,
        /// Its component.
        other_path: PathBuf,
    },
    /// One plugin name for two components.
    #[error(
        "two components are called `{plugin}`: `{}` and `{}`, which has the name already",
        path.display(),
        other_path.display()
    )]
    SamePlugin {
        /// The name.
        plugin: PluginId,
        /// The component that is refused.
        path: PathBuf,
        /// The component that keeps the name.
        other_path: PathBuf,
    },
    /// A step ended in a panic, which is rwork's own fault.
    #[error("failed to load `{}`: a load step panicked", path.display())]
    Panicked {
        /// The component.
        path: PathBuf,
    },
}

impl Error {
    /// What to do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Directory { path, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("create it, or name another: `rwork run --plugins DIR` (tried `{}`)", path.display()))
            }
            Self::TooMany { .. } => Some("name the directory that holds the plugins, and only them".to_owned()),
            Self::CacheNotPrivate { path, .. } => Some(format!(
                "it holds native code: remove it, or name another with `--cache`; rwork makes `{}` with mode 0700",
                path.display()
            )),
            Self::NotAFile { path, .. } => {
                Some(format!("rename `{}`: only components end in `.wasm` in a plugin directory", file_name(path)))
            }
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path; a link of this name may lead nowhere".to_owned())
            }
            Self::Unreadable { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let the worker's user read it: `chmod a+r {}`", path.display()))
            }
            Self::TooLarge { path, .. } if path.extension().is_some_and(|extension| extension == "wasm") => {
                Some("build it with `rwork build`, which strips debug information".to_owned())
            }
            Self::TwoManifests { shared, .. } => Some(format!("keep one of them; remove `{}`", shared.display())),
            Self::SharedManifest { path, .. } => Some(format!(
                "give each component its own manifest, such as `{}`, or a folder of its own",
                path.with_extension("toml").display()
            )),
            Self::ManifestGrants { .. } => Some(
                "grants are the operator's: put them into `rwork.toml` under `[plugins.NAME.grants]`; a manifest may say \
                 what it needs under `[requests]`"
                    .to_owned(),
            ),
            Self::Name { path, .. } => Some(format!(
                "rename the file, or write `name = \"...\"` into `{}`",
                path.with_extension("toml").display()
            )),
            Self::Compile { source, .. } | Self::Link { source, .. } | Self::Describe { source, .. } => source.hint(),
            Self::TaskCount { found: 0, .. } => Some("mark a function with `#[rwork::task]`".to_owned()),
            Self::MemoryTooSmall { task, needed, .. } => {
                let mebibytes = needed.div_ceil(1 << 20);
                Some(format!("write `memory = \"{mebibytes}MiB\"` or more under `[tasks.\"{task}\"]` in `rwork.toml`"))
            }
            Self::NoCleanup { .. } => Some("remove `cleanup` where it is set, or export `rwork:task/cleanup`".to_owned()),
            Self::SameTask { path, .. } => Some(format!(
                "rename the task (`#[task(name = \"...\")]`), or remove one of the two files, such as `{}`",
                path.display()
            )),
            Self::SamePlugin { path, .. } => Some(format!(
                "write another `name` into `{}`, or remove one of the two files",
                path.with_extension("toml").display()
            )),
            _ => None,
        }
    }

    /// The error and its causes on one line, for logs and listings.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// Whether it is about a name that another plugin holds, and so may pass when that plugin changes.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::SameTask { .. } | Self::SamePlugin { .. })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
