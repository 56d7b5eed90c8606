//! Fresh invocations in this process: the worker's execute step against a bare engine loop, in turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rwork_plugin::{Plugins, Task};
use rwork_sandbox::{
    Input, Invocation, JSON, Limits, NoHost, Outcome, RequestInfo, Sandbox, SandboxConfig, Stop,
};
use rwork_worker::{Executor, SandboxExecutor};

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

    /// Invocations per second by the worker's executor: a slot each, guests on their own threads, started from the I/O
    /// thread, which takes every report.
    async fn step(&self, time: Duration) -> anyhow::Result<f64> {
        let rig = (self.executor.clone(), Arc::clone(&self.task), self.invocation.clone());
        tokio::spawn(drive(rig, time)).await?
    }
}

async fn drive(rig: (SandboxExecutor, Arc<Task>, Invocation), time: Duration) -> anyhow::Result<f64> {
    let (executor, task, invocation) = rig;
    let (mut running, mut count) = (FuturesUnordered::new(), 0_u64);
    let begin = |slot| {
        let invocation = Invocation { stop: Stop::default(), ..invocation.clone() };
        executor.execute(slot, &task, invocation)
    };
    let started = Instant::now();
    while started.elapsed() < time {
        if running.is_empty() {
            running.push(begin(executor.admit(&task).await));
        }
        while running.len() < AHEAD
            && let Some(slot) = executor.try_admit(&task)
        {
            running.push(begin(slot));
        }
        let mut next = running.next().await;
        while let Some(report) = next {
            returned(report.outcome)?;
            count += 1;
            next = running.next().now_or_never().flatten();
        }
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    while running.next().await.is_some() {}
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
