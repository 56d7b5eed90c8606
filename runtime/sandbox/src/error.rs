//! Everything that can go wrong before a task runs; how a task itself ended is an [`crate::Outcome`].

use std::path::PathBuf;

use crate::artefact::NotAComponent;

/// The cause of a failure, of any library.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the sandbox could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("expected `{name}` to be {min}..={max}, got `{value}`")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: usize,
        /// Smallest allowed.
        min: usize,
        /// Largest allowed.
        max: usize,
    },
    /// The engine could not be built.
    #[error("failed to start the WebAssembly engine")]
    Engine(#[source] BoxError),
    /// A thread could not be started.
    #[error("failed to start the {what}")]
    Thread {
        /// Which one.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are no component.
    #[error(transparent)]
    NotAComponent(#[from] NotAComponent),
    /// The component does not compile.
    #[error("failed to compile the component")]
    Compile(#[source] BoxError),
    /// Compiled code could not be mapped.
    #[error("failed to load compiled code from `{path}`")]
    Load {
        /// The artefact.
        path: PathBuf,
        /// Why.
        source: BoxError,
    },
    /// The component exports something else than a plugin does.
    #[error("`{plugin}` is not a plugin of this worker: expected the export `{expected}`, found {found}")]
    World {
        /// The plugin.
        plugin: String,
        /// What a plugin exports.
        expected: &'static str,
        /// What this one exports.
        found: String,
    },
    /// The component imports what the operator does not grant.
    #[error("`{plugin}` needs what it is not granted: {}", .missing.join(", "))]
    NotGranted {
        /// The plugin.
        plugin: String,
        /// The imports, all of them.
        missing: Vec<String>,
        /// The lines that grant them.
        grant: String,
    },
    /// The component imports what this worker does not have.
    #[error("`{plugin}` imports what this worker does not offer: {}", .imports.join(", "))]
    UnknownImports {
        /// The plugin.
        plugin: String,
        /// The imports, all of them.
        imports: Vec<String>,
    },
    /// The component asks for more memories, tables or bytes than any invocation may have.
    #[error("`{plugin}` is too large for this worker: {what}")]
    TooLarge {
        /// The plugin.
        plugin: String,
        /// What it asks for, and what there is.
        what: String,
    },
    /// The types of the component's imports or exports differ from this worker's.
    #[error("failed to link `{plugin}`")]
    Link {
        /// The plugin.
        plugin: String,
        /// What differs.
        source: BoxError,
    },
    /// `describe` did not return a description.
    #[error("`{plugin}` could not be asked for its tasks: {reason}")]
    Describe {
        /// The plugin.
        plugin: String,
        /// How the call ended.
        reason: String,
    },
    /// The cleanup hook did not return.
    #[error("the cleanup hook of `{plugin}` failed: {reason}")]
    Cleanup {
        /// The plugin.
        plugin: String,
        /// How the call ended.
        reason: String,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotAComponent(what) => what.hint().map(str::to_owned),
            Self::World { .. } => {
                Some("build it with `rwork build`, or against `wit/` of rwork 0.1".to_owned())
            }
            Self::NotGranted { grant, .. } => Some(format!("add to rwork.toml:\n{grant}")),
            Self::UnknownImports { .. } => {
                Some("build it against this worker's `wit/` and WASI 0.2".to_owned())
            }
            Self::Describe { .. } => {
                Some("`describe` must return at once and may not depend on anything outside".to_owned())
            }
            Self::Engine(_) => Some("`rwork doctor` checks what the engine needs".to_owned()),
            _ => None,
        }
    }
}

/// A wasmtime error as a source: its own chain, on one line each.
pub(crate) fn boxed(error: wasmtime::Error) -> BoxError {
    error.into()
}
