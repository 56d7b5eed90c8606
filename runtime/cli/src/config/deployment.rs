//! The tables of the file about plugins and their tasks: `[plugins]`, `[tasks]`, `[limits]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rwork_plugin::{ByteSize, Ceilings, Deployment, Seconds, TaskOptions, WorkerDefaults};
use serde::Deserialize;

use super::Settings;
use super::document::Table;
use super::grants::{self, Lookup, Source};
use crate::failure::Failure;

/// The tables that the plugin crate reads itself.
#[derive(Debug, Default, Deserialize)]
struct Sections {
    #[serde(default)]
    tasks: BTreeMap<String, TaskOptions>,
    #[serde(default)]
    limits: Ceilings,
}

/// The tables, understood as far as they can be without the settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    deployment: Deployment,
}

/// Reads the tables of a file.
pub(super) fn read(path: &Path, text: &str, table: &Table, variables: Lookup<'_>) -> Result<Tables, Failure> {
    let mut tables = Tables::default();
    let base = grants::folder(path);
    let source = Source { path, base: &base, variables };
    for entry in table.iter().filter(|entry| entry.key == "plugins") {
        tables.deployment.grants = source.plugins(&entry.item)?;
    }
    let sections: Sections = toml::from_str(text).map_err(|error| misfit(path, text, &error))?;
    tables.deployment.tasks = sections.tasks;
    tables.deployment.defaults.ceilings = sections.limits;
    Ok(tables)
}

fn misfit(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let offset = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    Failure::usage(format!("{}:{line}: {}", path.display(), error.message().replace('\n', " ")))
}

impl Tables {
    /// The operator's word, with the settings below it.
    pub(super) fn deployment(self, settings: &Settings) -> Arc<Deployment> {
        let mut deployment = self.deployment;
        deployment.defaults = WorkerDefaults {
            options: TaskOptions {
                time_limit: Some(Seconds(settings.task_time_limit.unwrap_or_default())),
                soft_time_limit: Some(Seconds(settings.task_soft_time_limit.unwrap_or_default())),
                memory: Some(ByteSize(settings.task_memory_limit as u64)),
                acks_late: Some(settings.task_acks_late),
                acks_on_failure: Some(settings.task_acks_on_failure),
                acks_on_timeout: Some(settings.task_acks_on_timeout),
                reject_on_worker_lost: Some(settings.task_reject_on_worker_lost),
                ignore_result: Some(settings.task_ignore_result),
                store_errors_even_if_ignored: Some(settings.task_store_errors_even_if_ignored),
                track_started: Some(settings.task_track_started),
                ..TaskOptions::default()
            },
            ceilings: deployment.defaults.ceilings,
        };
        // Without a ceiling of the operator's, the largest cap that the configuration names is one: the sandbox reserves
        // memory for it, and neither a manifest nor a message may ask for more.
        let largest = largest_memory(&deployment);
        deployment.defaults.ceilings.max_memory.get_or_insert(largest);
        Arc::new(deployment)
    }
}

fn largest_memory(deployment: &Deployment) -> ByteSize {
    let tasks = deployment.tasks.values().filter_map(|options| options.memory);
    tasks.chain(deployment.defaults.options.memory).max().unwrap_or_default()
}
