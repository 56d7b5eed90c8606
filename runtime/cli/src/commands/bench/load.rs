//! How long a plugin takes from file to live when its compiled code is in the cache.

use std::time::Instant;

use rwork_plugin::{Plugins, PluginsConfig};
use rwork_sandbox::{Sandbox, SandboxConfig};

use super::Bench;
use super::report::{Bound, Report};
use crate::wiring;

pub(crate) async fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let sandbox = Sandbox::new(SandboxConfig::with_concurrency(1), bench.context.io.clone())?;
    let config = wiring::plugins_config(bench.context.config()?)?;
    let config = PluginsConfig { directory: bench.plugins.clone(), ..config };
    // The first look compiles what the cache does not have.
    let (plugins, _) = Plugins::open(config.clone(), sandbox.clone()).await?;
    let paths: Vec<_> =
        plugins.registry().snapshot().plugins.iter().map(|status| status.path.clone()).collect();
    let Some(path) = plugins.registry().lookup(bench.task.as_str()).and_then(|task| {
        let of =
            |path: &&std::path::PathBuf| path.file_stem().is_some_and(|stem| stem == task.plugin.as_str());
        paths.iter().find(of).or(paths.first()).cloned()
    }) else {
        return Ok(());
    };
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let started = Instant::now();
        Plugins::check(&config, sandbox.clone(), &path).await?;
        rounds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    report.add("plugin load from the cache", "ms", rounds, Bound::AtMost(5.0));
    Ok(())
}
