//! From the configuration to what the crates below want: the sandbox's, the plugins' and the worker's own settings.

use std::path::{Path, PathBuf};

use rwork_plugin::{PluginsConfig, default_cache_directory};
use rwork_protocol::{AcceptContent, QueueName};
use rwork_sandbox::{Sandbox, SandboxConfig};
use rwork_worker::WorkerConfig;

use crate::config::Config;
use crate::context::Context;
use crate::failure::Failure;
use crate::signers::signers;

/// What a worker's name begins with when only its host is given, as Celery's begins with `celery`.
const NODE: &str = "rwork";

/// Starts the sandbox, with its guest threads.
///
/// # Errors
/// When a setting is out of range or the engine can't be started.
pub(crate) fn sandbox(context: &Context, config: &Config) -> anyhow::Result<Sandbox> {
    let start = Sandbox::new(sandbox_config(config), context.io.clone());
    Ok(start?)
}

/// The sandbox's settings.
pub(crate) fn sandbox_config(config: &Config) -> SandboxConfig {
    let mut wanted = SandboxConfig::with_concurrency(config.settings.worker_concurrency);
    if let Some(max) = config.settings.worker_max_in_flight {
        wanted.max_in_flight = max;
    }
    if let Some(max) = config.deployment.defaults.ceilings.max_memory {
        wanted.memory_bytes_max = max.bytes();
    }
    wanted
}

/// Where the plugins are, and what they may do.
///
/// # Errors
/// When there is no place for compiled code.
pub(crate) fn plugins_config(config: &Config) -> anyhow::Result<PluginsConfig> {
    let directory = config.resolve("plugins_dir", &config.settings.plugins_dir);
    let mut wanted = PluginsConfig::new(directory, cache_directory(config)?);
    wanted.deployment = config.deployment.clone();
    Ok(wanted)
}

/// Checks that every granted directory is there: without it each task of the plugin would be a fault of the host.
///
/// # Errors
/// The first one that is not.
pub(crate) fn check_directories(config: &Config) -> anyhow::Result<()> {
    for (plugin, grants) in &config.deployment.grants {
        if let Some(missing) = grants.dirs.iter().find(|dir| !dir.host.is_dir()) {
            let path = missing.host.display();
            let failure = Failure::usage(format!(
                "expected the directory `{path}` that [plugins.{plugin}.grants] grants to exist, found none"
            ));
            return Err(failure.hint(format!("`mkdir -p {path}`, or remove it from `dirs`")).into());
        }
    }
    Ok(())
}

/// Where compiled code is kept.
///
/// # Errors
/// When neither a setting nor the environment names a place.
pub(crate) fn cache_directory(config: &Config) -> anyhow::Result<PathBuf> {
    if let Some(path) = &config.settings.plugins_cache_dir {
        return Ok(config.resolve("plugins_cache_dir", path));
    }
    let (xdg, home) = (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"));
    default_cache_directory(xdg.as_deref().map(Path::new), home.as_deref().map(Path::new)).ok_or_else(|| {
        Failure::usage("expected a directory for compiled plugins, found neither `HOME` nor `XDG_CACHE_HOME`")
            .hint("set `plugins_cache_dir` in rwork.toml, or `RWORK_PLUGINS_CACHE_DIR`")
            .into()
    })
}

/// The queues that a worker takes from.
///
/// # Errors
/// When a name can't be a queue's.
pub(crate) fn queues(config: &Config) -> anyhow::Result<Vec<QueueName>> {
    if config.settings.task_queues.is_empty() {
        return Ok(vec![default_queue(config)?]);
    }
    let mut queues = Vec::new();
    for name in &config.settings.task_queues {
        let queue = queue(config, "task_queues", name)?;
        if !queues.contains(&queue) {
            queues.push(queue);
        }
    }
    Ok(queues)
}

/// The queue of tasks that name none.
///
/// # Errors
/// When the name can't be a queue's.
pub(crate) fn default_queue(config: &Config) -> anyhow::Result<QueueName> {
    queue(config, "task_default_queue", &config.settings.task_default_queue)
}

fn queue(config: &Config, key: &str, name: &str) -> anyhow::Result<QueueName> {
    QueueName::new(name).map_err(|error| Failure::usage(format!("{}: {error}", config.origin(key))).into())
}

/// The worker's settings; `sandbox` has the numbers that both must agree on.
///
/// # Errors
/// When a name can't be a queue's, or a certificate is not to be trusted.
pub(crate) fn worker_config(config: &Config, sandbox: &SandboxConfig) -> anyhow::Result<WorkerConfig> {
    let settings = &config.settings;
    let node = node_name(&settings.worker_hostname, &host_name());
    let mut wanted = WorkerConfig::new(node, queues(config)?, default_queue(config)?);
    wanted.concurrency = sandbox.concurrency;
    wanted.max_in_flight = sandbox.max_in_flight;
    wanted.prefetch_multiplier = settings.worker_prefetch_multiplier;
    wanted.prefetch_max = settings.worker_prefetch_max;
    wanted.deliveries_max = settings.task_deliveries_max;
    wanted.decode_limits.accept = AcceptContent::parse(&settings.accept_content)?;
    wanted.decode_limits.signers = signers(config)?;
    wanted.decode_limits.typed_values = settings.accept_typed_values.clone();
    wanted.result_expires = settings.result_expires;
    wanted.result_extended = settings.result_extended;
    wanted.retry_on_startup = settings.broker_connection_retry_on_startup;
    wanted.bytes_max = settings.worker_bytes_max;
    wanted.deduplicate_successful = settings.worker_deduplicate_successful_tasks;
    wanted.drain_deadline = settings.worker_shutdown_timeout;
    Ok(wanted)
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `worker1@%h` with the machine's name in it: `%h` all of it, `%n` up to the first dot, `%d` behind it, `%%` a percent
/// sign (`celery/utils/nodenames.py`). What has no `@` names the host.
pub(crate) fn node_name(pattern: &str, host: &str) -> String {
    let (short, domain) = host.split_once('.').unwrap_or((host, ""));
    let mut name = String::new();
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        match (character, character == '%') {
            (_, true) => match rest.next() {
                Some('h') => name.push_str(host),
                Some('n') => name.push_str(short),
                Some('d') => name.push_str(domain),
                Some('%') => name.push('%'),
                Some(other) => name.extend(['%', other]),
                None => name.push('%'),
            },
            (plain, false) => name.push(plain),
        }
    }
    if name.contains('@') { name } else { format!("{NODE}@{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_expand_as_celerys_do() {
        let check = |pattern, host, expect: &str| assert_eq!(node_name(pattern, host), expect);
        check("rwork@%h", "a.example.org", "rwork@a.example.org");
        check("w1@%n.%d", "a.example.org", "w1@a.example.org");
        check("w1@%n", "a", "w1@a");
        check("w%%1@%h%", "a", "w%1@a%");
        check("w%i@%h", "a", "w%i@a");
        check("worker1", "a", "rwork@worker1");
    }
}
