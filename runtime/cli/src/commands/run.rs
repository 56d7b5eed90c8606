//! `rwork run`: a worker, wired.
//!
//! In order: configuration and log; the sandbox, with guests on threads of its own; plugins; broker and backend; the
//! worker, with the plugin watcher and the signals beside it. Broker I/O, leases and timers stay on the I/O runtime, which
//! never runs a guest.

mod banner;
mod connect;
mod drain;
mod flags;
mod renewals;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;

use rwork_broker::Broker;
use rwork_plugin::Plugins;
use rwork_worker::{SandboxExecutor, Shutdown, Summary, SystemClock, Worker, WorkerConfig, WorkerParts};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use flags::Args;
use signals::Signals;

use crate::context::Context;
use crate::drivers::{self, Services};
use crate::failure::Exit;
use crate::{logging, open_files, wiring};

/// Works until told to stop.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let (flags, notes) = args.settings()?;
    let config = context.config_with(&flags)?;
    logging::start(config, &context.printer)?;
    for note in config.warnings.iter().chain(&notes).chain(&drivers::warning(config)) {
        tracing::warn!("{note}");
    }
    wiring::check_directories(config)?;
    // From here on a signal is a wish, not the end of the process.
    let mut signals = Signals::listen()?;
    let sandbox = wiring::sandbox(context, config)?;
    open_files::raise(sandbox.config())?;
    let worker = wiring::worker_config(config, sandbox.config())?;
    let (plugins, report) = Plugins::open(wiring::plugins_config(config)?, sandbox.clone()).await?;
    // Who wants it to leave when there is nothing to do does not want it to wait for a server either.
    let patient = config.settings.broker_connection_retry_on_startup && !args.drain;
    let services = tokio::select! {
        services = connect::services(config, patient) => services?,
        () = signals.any() => {
            tracing::info!("told to stop before broker and result backend could be reached");
            return Ok(Exit::Done.into());
        }
    };
    banner::show(context, config, &worker, &services, &plugins, &report);
    // It holds the versions that were loaded first, which are to be freed when they are replaced.
    drop(report);
    if args.purge {
        purge(&*services.broker, &worker).await?;
    }
    let shutdown = Shutdown::new();
    let executor = SandboxExecutor { sandbox, registry: plugins.registry().clone() };
    let watching = tokio::spawn({
        let (plugins, stop) = (plugins.clone(), shutdown.intake.clone());
        async move { plugins.watch(stop).await }
    });
    let ended = work(&args, worker, services, executor, signals, &shutdown).await;
    watching.abort();
    let summary = ended?;
    banner::farewell(&summary);
    Ok(if shutdown.work.is_cancelled() { Exit::Interrupted } else { Exit::Done }.into())
}

/// Runs the worker, with whatever may stop it beside it.
async fn work(
    args: &Args,
    worker: WorkerConfig,
    services: Services,
    executor: SandboxExecutor,
    signals: Signals,
    shutdown: &Shutdown,
) -> anyhow::Result<Summary> {
    let queues = worker.queues.clone();
    let broker = Arc::clone(&services.broker);
    let parts = WorkerParts {
        broker: services.broker,
        backend: services.backend,
        executor,
        clock: Arc::new(SystemClock),
        rng: fastrand::Rng::new(),
        renewals: Some(renewals::thread()?),
        config: worker,
    };
    // On the I/O thread itself: from this one, each event would cost a wake-up across threads.
    let mut running = AbortOnDropHandle::new(tokio::spawn(Worker::new(parts)?.run(shutdown.clone())));
    let leave_when_empty = async {
        if args.drain {
            drain::until_empty(&*broker, &queues, &shutdown.intake).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        summary = &mut running => Ok(summary??),
        never = signals.pass_on(shutdown) => match never {},
        () = leave_when_empty => Ok(running.await??),
    }
}

/// Celery's `--purge`.
async fn purge(broker: &dyn Broker, worker: &WorkerConfig) -> anyhow::Result<()> {
    for queue in &worker.queues {
        let deleted = broker.purge(queue).await?;
        tracing::info!(%queue, deleted, "waiting messages deleted");
    }
    Ok(())
}
