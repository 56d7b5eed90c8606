//! The handle by which an invocation is asked, then made, to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

use crate::outcome::KillReason;

/// Why a guest is asked to stop (`rwork:task/limits.stop-reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its soft time limit passed.
    SoftTimeLimit,
    /// The task was revoked.
    Revoked,
    /// The worker is shutting down.
    Shutdown,
}

/// Shared by the worker, the sandbox's timers and the guest's imports. Both wishes are sticky; the first of each wins.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    request: AtomicU8,
    kill: AtomicU8,
    requested: Notify,
    killed: Notify,
}

impl Stop {
    /// Asks the guest to end by itself: `stop-requested` answers, blocking imports return early.
    pub fn request(&self, reason: StopReason) {
        let _ = self.0.request.compare_exchange(0, encode_stop(reason), Ordering::AcqRel, Ordering::Acquire);
        self.0.requested.notify_waiters();
    }

    /// Ends the guest: a trap in guest code, a dropped future in a host call.
    pub fn kill(&self, reason: KillReason) {
        let _ = self.0.kill.compare_exchange(0, encode_kill(reason), Ordering::AcqRel, Ordering::Acquire);
        self.0.killed.notify_waiters();
    }

    /// The wish, if there is one.
    pub fn requested(&self) -> Option<StopReason> {
        match self.0.request.load(Ordering::Acquire) {
            1 => Some(StopReason::SoftTimeLimit),
            2 => Some(StopReason::Revoked),
            3 => Some(StopReason::Shutdown),
            _ => None,
        }
    }

    /// The kill, if there was one.
    pub fn killed(&self) -> Option<KillReason> {
        match self.0.kill.load(Ordering::Acquire) {
            1 => Some(KillReason::Revoked),
            2 => Some(KillReason::Shutdown),
            _ => None,
        }
    }

    /// Resolves when a stop is requested.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_requested(&self) -> StopReason {
        loop {
            let notified = self.0.requested.notified();
            if let Some(reason) = self.requested() {
                return reason;
            }
            notified.await;
        }
    }

    /// Resolves when the guest is to be killed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_killed(&self) -> KillReason {
        loop {
            let notified = self.0.killed.notified();
            if let Some(reason) = self.killed() {
                return reason;
            }
            notified.await;
        }
    }
}

fn encode_stop(reason: StopReason) -> u8 {
    match reason {
        StopReason::SoftTimeLimit => 1,
        StopReason::Revoked => 2,
        StopReason::Shutdown => 3,
    }
}

fn encode_kill(reason: KillReason) -> u8 {
    match reason {
        KillReason::Revoked => 1,
        KillReason::Shutdown => 2,
    }
}
