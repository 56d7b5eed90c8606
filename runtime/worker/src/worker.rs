//! A worker from start to end.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rwork_backend::ResultBackend;
use rwork_broker::Broker;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bodies::Bodies;
use crate::clock::Clock;
use crate::config::WorkerConfig;
use crate::error::Error;
use crate::executor::Executor;
use crate::outage::Outage;
use crate::parts::Parts;
use crate::pipe::Pipe;
use crate::settler::Settler;
use crate::shared::Shared;
use crate::shutdown::Shutdown;
use crate::summary::Summary;

/// How long a receive in progress may take to hand over what it has taken from the broker already.
const LAST_RECEIVE: Duration = Duration::from_millis(100);

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
    /// Everything else.
    pub config: WorkerConfig,
}

/// A worker that has not been started.
pub struct Worker<E> {
    parts: WorkerParts<E>,
    pub(crate) bodies: Arc<Bodies>,
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
        Ok(Self {
            parts,
            bodies: Arc::default(),
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
        let capacity = self.parts.config.uncommitted_max();
        let (settler, inbox) = mpsc::channel(capacity);
        let shared = Arc::new(Shared {
            bodies: self.bodies,
            broker: self.parts.broker,
            backend: self.parts.backend,
            clock: self.parts.clock,
            rng: Mutex::new(self.parts.rng),
            settler: settler.downgrade(),
            summary: Mutex::default(),
            config: self.parts.config,
            #[cfg(test)]
            mistake: self.mistake,
        });
        // Aborted on drop, with whatever else belongs to this worker.
        let mut settling = JoinSet::new();
        settling.spawn(Settler::new(Arc::clone(&shared), inbox).run());
        let parts = Arc::new(Parts { shared, executor: self.parts.executor });
        let mut pipe = Pipe::new(parts, settler);
        pipe.run(first_of(shutdown.intake.cancelled(), shutdown.work.cancelled())).await?;
        Ok(shut_down(pipe, settling, &shutdown).await)
    }
}

/// Shutdown, from top to bottom.
async fn shut_down<E: Executor>(
    mut pipe: Pipe<E>,
    mut settling: JoinSet<()>,
    shutdown: &Shutdown,
) -> Summary {
    let shared = Arc::clone(&pipe.parts.shared);
    let config = &shared.config;
    tracing::info!(node = %config.node, "stopping: taking no more messages");

    // Intake off.
    pipe.stop_intake(LAST_RECEIVE).await;
    pipe.give_back_unstarted();

    // Drain, until the deadline or the second signal.
    pipe.drain(first_of(shutdown.work.cancelled(), after(config.drain_deadline))).await;

    // Ask, then kill.
    pipe.ask_to_stop();
    pipe.drain(sleep(config.stop_grace)).await;
    pipe.kill();
    pipe.drain(sleep(config.kill_grace)).await;
    let abandoned = pipe.abandon().await;
    if abandoned > 0 {
        tracing::error!(node = %config.node, abandoned, "tasks that could not be ended will be redelivered");
    }

    // Flush what has ended. The settler ends when the last way to it is gone.
    let session = pipe.session.clone();
    let keeper = pipe.close();
    let flush = async { while settling.join_next().await.is_some() {} };
    if timeout(config.flush_deadline, flush).await.is_err() {
        tracing::error!(node = %config.node, "some outcomes could not be stored in time: their messages will be redelivered");
    }
    settling.shutdown().await;

    // Close: whatever is still held goes back.
    if let Some(session) = session {
        let close = session.close(Outage::of_broker("close the consumer", shared.backoff()));
        if timeout(config.flush_deadline, close).await.is_err() {
            tracing::warn!(node = %config.node, "the broker did not answer: what is held is redelivered when its lease runs out");
        }
    }
    drop(keeper);
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
