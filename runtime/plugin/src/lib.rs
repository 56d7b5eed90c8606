//! From a `.wasm` file and its manifest to a checked, live plugin.
//!
//! In this order: `discovery` finds components, `stamp` waits until they are quiet, `load` reads, compiles or maps,
//! links, describes and checks them, `conflict` settles who gets a name, `reload` swaps what serves, `registry` shows it.
//! `watch` says when to look again. Task options of every layer are read and laid over each other in `options`.
//!
//! This crate never runs a task, never decides what a plugin may do (the operator does), and has never heard of messages.

mod cache;
mod config;
mod conflict;
mod discovery;
mod error;
mod event;
mod id;
mod load;
mod manifest;
mod options;
mod plugins;
mod quantity;
mod read;
mod registry;
mod reload;
mod stamp;
mod strict;
mod watch;

#[cfg(test)]
mod tests;

pub use cache::{CACHE_BYTES_MAX, CACHE_FILES_MAX};
pub use config::{
    Deployment, PATIENCE_DEFAULT, PluginsConfig, QUIET_DEFAULT, RESCAN_DEFAULT, default_cache_directory,
};
pub use discovery::PLUGINS_MAX;
pub use error::Error;
pub use event::ReloadEvent;
pub use id::{InvalidPluginId, PLUGIN_ID_BYTES_MAX, PluginId};
pub use load::TASKS_MAX;
pub use manifest::{Manifest, ManifestLimits, Requests, TaskTable, Texts};
pub use options::{
    Backoff, Ceilings, ContentTypes, EffectiveOptions, ExceptionNames, MaxRetries, QueueOption, RateLimit,
    TaskOptions, WorkerDefaults,
};
pub use plugins::{LoadReport, Plugins};
pub use quantity::{ByteSize, Seconds};
pub use read::COMPONENT_BYTES_MAX;
pub use registry::{Plugin, PluginStatus, Registry, Snapshot, Task};
