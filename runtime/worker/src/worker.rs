//! A worker from start to end.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rwork_backend::ResultBackend;
use rwork_broker::Broker;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::WorkerConfig;
use crate::error::Error;
use crate::executor::Executor;
use crate::live::Live;
use crate::outage::Outage;
use crate::parts::Parts;
use crate::pipe::Pipe;
use crate::shared::Shared;
use crate::shutdown::Shutdown;
use crate::summary::Summary;
use crate::watched::Watched;

/// Time that a taking in progress has to hand over what it has got from the broker already, and be decoded.
const LAST_NEWS: Duration = Duration::from_millis(500);

/// Everything that a worker works with, chosen by the caller: nothing in this crate opens a socket or a file, reads the
/// machine's clock or its randomness.
#[derive(Debug)]
pub struct WorkerParts<E> {
    /// Where messages come from and follow-ups go.
    pub broker: Arc<dyn Broker>,
    /// Where results go.
    pub backend: Arc<dyn ResultBackend>,
    /// What runs tasks.
    pub executor: E,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Jitter and new ids. Seeded by the caller.
    pub rng: fastrand::Rng,
    /// A thread of its own for renewals, which nothing else is to keep from its timers and its connections. `None`: they go
    /// with everything else, as in tests.
    pub renewals: Option<Handle>,
    /// Everything else.
    pub config: WorkerConfig,
}

/// A worker that has not been started.
pub struct Worker<E> {
    parts: WorkerParts<E>,
    pub(crate) budget: Arc<Budget>,
    #[cfg(test)]
    pub(crate) mistake: Option<crate::sim::Mistake>,
}

impl<E> fmt::Debug for Worker<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("config", &self.parts.config).finish_non_exhaustive()
    }
}

impl<E: Executor> Worker<E> {
    /// Checks the settings.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(parts: WorkerParts<E>) -> Result<Self, Error> {
        parts.config.check()?;
        let budget = Arc::new(Budget::new(parts.config.bytes_max));
        Ok(Self {
            parts,
            budget,
            #[cfg(test)]
            mistake: None,
        })
    }

    /// Works until `shutdown`, then drains and returns what was done.
    ///
    /// # Errors
    /// Only before the first message, when the broker refuses us in a way that waiting does not mend.
    ///
    /// # Cancel safety
    /// Dropping the future is a crash: nothing is lost, since nothing is acked before its result is stored; what is held
    /// is redelivered when its lease has run out.
    pub async fn run(self, shutdown: Shutdown) -> Result<Summary, Error> {
        let shared = Arc::new(Shared {
            budget: self.budget,
            broker: self.parts.broker,
            backend: self.parts.backend,
            clock: self.parts.clock,
            rng: Mutex::new(self.parts.rng),
            summary: Mutex::default(),
            renewals: self.parts.renewals,
            postponed: Watched::new(0),
            live: ArcSwap::from_pointee(Live::from(&self.parts.config)),
            config: self.parts.config,
            #[cfg(test)]
            mistake: self.mistake,
        });
        // Aborted on drop, with whatever else belongs to this worker.
        let mut pipe = Pipe::new(Arc::new(Parts { shared, executor: self.parts.executor }));
        pipe.run(first_of(shutdown.intake.cancelled(), shutdown.work.cancelled())).await?;
        Ok(shut_down(pipe, &shutdown).await)
    }
}

/// Shutdown, from top to bottom.
async fn shut_down<E: Executor>(mut pipe: Pipe<E>, shutdown: &Shutdown) -> Summary {
    let shared = Arc::clone(&pipe.parts.shared);
    let config = &shared.config;
    tracing::info!(node = %config.node, "stopping: taking no more messages");

    // Intake off.
    pipe.stop_intake(LAST_NEWS).await;

    // Drain, until the deadline or the second signal.
    pipe.drain(first_of(shutdown.work.cancelled(), after(config.drain_deadline))).await;

    // Ask, then kill.
    pipe.ask_to_stop();
    pipe.drain(sleep(config.stop_grace)).await;
    pipe.kill();
    pipe.drain(sleep(config.kill_grace)).await;
    let abandoned = pipe.abandon().await;
    if !abandoned.is_empty() {
        tracing::error!(node = %config.node, abandoned = abandoned.len(), "tasks that could not be ended will be redelivered");
    }

    // Flush what has ended, then close: whatever is still held goes back.
    let (groups, mut telling) = pipe.close();
    let close = async {
        for group in groups {
            let group = group.flush().await;
            let session = group.current.borrow().clone();
            if let Some(session) = session {
                let of_it = abandoned.iter().filter(|fence| Arc::ptr_eq(&fence.session, &session));
                let started: Vec<_> = of_it.map(|fence| fence.receipt).collect();
                let outage = Outage::of_broker("close the consumer", shared.backoff());
                session.close(&started, outage).await;
            }
        }
    };
    // Receivers mend their lines as long as somebody listens; what they get goes back with the rest.
    let listen = async {
        while telling.recv().await.is_some() {}
        std::future::pending().await
    };
    if timeout(config.flush_deadline, first_of(close, listen)).await.is_err() {
        tracing::error!(node = %config.node, "broker or result backend did not answer in time: what is not committed will be redelivered");
    }
    shared.summary()
}

async fn first_of(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = one => {}
        () = other => {}
    }
}

/// After so long, or never.
async fn after(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => sleep(deadline).await,
        None => std::future::pending().await,
    }
}
