//! Fresh invocations in this process: the worker's execute step against a bare engine loop, in turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rwork_plugin::{Plugins, Task};
use rwork_sandbox::{
    Input, Invocation, JSON, Limits, NoHost, Outcome, RequestInfo, Sandbox, SandboxConfig, Stop,
};
use rwork_worker::{Executor, SandboxExecutor};
use tokio::task::JoinSet;

use super::Bench;
use super::report::{Bound, Report};
use crate::context::Context;
use crate::failure::Failure;
use crate::wiring;

/// Rounds before the first that counts: page faults, caches, clock frequencies.
const WARM_UP: Duration = Duration::from_millis(300);

/// Invocations under way at a time; the worker keeps as many ahead of its guest threads.
const AHEAD: usize = 256;

pub(crate) async fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let one = Rig::open(bench, 1).await?;
    let two = Rig::open(bench, 2).await?;
    for rig in [&one, &two] {
        rig.step(WARM_UP).await?;
    }
    let (mut bare, mut single, mut double) = (Vec::new(), Vec::new(), Vec::new());
    let (mut share, mut scale) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (alone, step, both) =
            (one.bare(bench.time).await?, one.step(bench.time).await?, two.step(bench.time).await?);
        share.push(step / alone * 100.0);
        scale.push(both / step);
        bare.push(alone);
        single.push(step);
        double.push(both);
    }
    report.add("bare engine loop, 1 thread", "/s", bare, Bound::None);
    report.add("worker's execute step, 1 thread", "/s", single, Bound::None);
    report.add("  of the bare loop", "%", share, Bound::AtLeast(70.0));
    report.add("worker's execute step, 2 threads", "/s", double, Bound::None);
    report.add("  of one thread", "×", scale, Bound::AtLeast(1.5));
    Ok(())
}

/// A sandbox with so many guest threads, and the task.
pub(crate) struct Rig {
    pub(crate) executor: SandboxExecutor,
    pub(crate) invocation: Invocation,
    pub(crate) task: Arc<Task>,
}

impl Rig {
    async fn open(bench: &Bench<'_>, concurrency: usize) -> anyhow::Result<Self> {
        Self::of(bench.context, &bench.plugins, bench.task.as_str(), &bench.args, concurrency).await
    }

    pub(crate) async fn of(
        context: &Context,
        plugins: &std::path::Path,
        task: &str,
        args: &str,
        concurrency: usize,
    ) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new(SandboxConfig::with_concurrency(concurrency), context.io.clone())?;
        let config = wiring::plugins_config(context.config()?)?;
        let config = rwork_plugin::PluginsConfig { directory: plugins.to_owned(), ..config };
        let (plugins, _) = Plugins::open(config, sandbox.clone()).await?;
        let executor = SandboxExecutor { sandbox, registry: plugins.registry().clone() };
        let unknown =
            || Failure::usage(format!("no plugin there has the task `{task}`")).hint("`rwork plugins list`");
        let found = executor.lookup(task).ok_or_else(unknown)?;
        let input = Input::Call {
            content_type: JSON.to_owned(),
            args: Bytes::from(args.to_owned()),
            kwargs: Bytes::from_static(b"{}"),
        };
        let invocation = Invocation {
            task: task.to_owned(),
            id: "bench".to_owned(),
            input,
            info: Arc::new(RequestInfo::default()),
            headers: Bytes::from_static(b"{}"),
            limits: Limits::default(),
            host: Arc::new(NoHost),
            stop: Stop::default(),
        };
        Ok(Self { executor, invocation, task: found })
    }

    /// Invocations per second of a bare loop.
    async fn bare(&self, time: Duration) -> anyhow::Result<f64> {
        let (sandbox, prepared) = (self.executor.sandbox.clone(), Arc::clone(&self.task.prepared));
        let invocation = self.invocation.clone();
        let started = Instant::now();
        let count =
            tokio::task::spawn_blocking(move || sandbox.bare_loop(&prepared, &invocation, time)).await??;
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }

    /// Invocations per second as the worker makes them: a slot each, a spawned task each, guests on their own threads.
    async fn step(&self, time: Duration) -> anyhow::Result<f64> {
        let rig = (self.executor.clone(), Arc::clone(&self.task), self.invocation.clone());
        tokio::spawn(drive(rig, time)).await?
    }
}

async fn drive(rig: (SandboxExecutor, Arc<Task>, Invocation), time: Duration) -> anyhow::Result<f64> {
    let (executor, task, invocation) = rig;
    let (mut running, mut count) = (JoinSet::new(), 0_u64);
    let started = Instant::now();
    while started.elapsed() < time {
        while running.len() < AHEAD {
            let slot = match executor.try_admit() {
                Some(slot) => slot,
                None if running.is_empty() => executor.admit().await,
                None => break,
            };
            let (executor, task) = (executor.clone(), Arc::clone(&task));
            let invocation = Invocation { stop: Stop::default(), ..invocation.clone() };
            running.spawn(async move { executor.execute(slot, &task, invocation).await.outcome });
        }
        let mut next = running.join_next().await;
        while let Some(outcome) = next {
            returned(outcome?)?;
            count += 1;
            next = running.try_join_next();
        }
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    while running.join_next().await.is_some() {}
    Ok(rate)
}

fn returned(outcome: Outcome) -> anyhow::Result<()> {
    match outcome {
        Outcome::Success(_) => Ok(()),
        other => Err(Failure::failed("the task of a benchmark must succeed")
            .because(anyhow::anyhow!("{other:?}"))
            .into()),
    }
}
