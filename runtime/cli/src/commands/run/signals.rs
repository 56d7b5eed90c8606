//! What signals mean to a worker: the first one drains, the second cuts it short, SIGQUIT does both at once.

use rwork_worker::Shutdown;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop a worker.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Drain,
    Stop,
}

impl Signals {
    /// Listens from now on; nothing that comes later is missed.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Passes every signal on, for as long as it is polled.
    pub(super) async fn pass_on(mut self, shutdown: &Shutdown) -> std::convert::Infallible {
        loop {
            match (self.next().await, shutdown.intake.is_cancelled()) {
                (Wish::Drain, false) => {
                    tracing::info!("told to stop: what runs may end; the next signal stops it");
                    shutdown.intake.cancel();
                }
                (Wish::Stop, _) | (Wish::Drain, true) => {
                    tracing::warn!("told to stop at once: what runs is ended and given back");
                    shutdown.intake.cancel();
                    shutdown.work.cancel();
                }
            }
        }
    }

    /// Waits for any of them, before there is a worker to stop. Cancel safe.
    pub(super) async fn any(&mut self) {
        self.next().await;
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Drain,
            _ = self.terminate.recv() => Wish::Drain,
            _ = self.hangup.recv() => Wish::Drain,
            _ = self.quit.recv() => Wish::Stop,
        }
    }
}
