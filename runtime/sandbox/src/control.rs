//! The deadlines of one running invocation, and what outlives its store: read by the guest's imports, by the epoch
//! callback and by the future that polls it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::invocation::Limits;
use crate::outcome::KillReason;
use crate::stop::{Stop, StopReason};

/// Why a guest is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Kill {
    #[error("the hard time limit passed")]
    HardTimeLimit,
    #[error("stopped from outside")]
    Stopped(KillReason),
}

/// One running invocation.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) started: Instant,
    pub(crate) soft: Option<Instant>,
    pub(crate) hard: Option<Instant>,
    pub(crate) stop: Stop,
    /// Written by the epoch callback, read after each poll: whether the poll ended because a tick came.
    yielded: AtomicBool,
    memory_peak: AtomicUsize,
    log_dropped: AtomicU64,
}

impl Control {
    /// Starts the clock.
    pub(crate) fn start(limits: &Limits, stop: Stop) -> Self {
        let started = Instant::now();
        let deadline = |limit: Option<Duration>| limit.and_then(|limit| started.checked_add(limit));
        Self {
            started,
            soft: deadline(limits.soft_time),
            hard: deadline(limits.hard_time),
            stop,
            yielded: AtomicBool::new(false),
            memory_peak: AtomicUsize::new(0),
            log_dropped: AtomicU64::new(0),
        }
    }

    /// Whether the guest has to end now.
    pub(crate) fn verdict(&self, now: Instant) -> Option<Kill> {
        if let Some(reason) = self.stop.killed() {
            return Some(Kill::Stopped(reason));
        }
        self.hard.is_some_and(|hard| now >= hard).then_some(Kill::HardTimeLimit)
    }

    /// Turns a soft limit that has passed into the wish to stop.
    pub(crate) fn note_time(&self, now: Instant) {
        if self.is_soft_passed(now) && self.stop.requested().is_none() {
            self.stop.request(StopReason::SoftTimeLimit);
        }
    }

    pub(crate) fn is_soft_passed(&self, now: Instant) -> bool {
        self.soft.is_some_and(|soft| now >= soft)
    }

    /// The wish to stop, looked up as of this moment rather than of the last tick.
    pub(crate) fn stop_requested(&self) -> Option<StopReason> {
        let asked = self.stop.requested();
        if asked.is_some() || self.soft.is_none() {
            return asked;
        }
        self.note_time(Instant::now());
        self.stop.requested()
    }

    pub(crate) fn set_yielded(&self, yielded: bool) {
        self.yielded.store(yielded, Ordering::Relaxed);
    }

    pub(crate) fn has_yielded(&self) -> bool {
        self.yielded.load(Ordering::Relaxed)
    }

    pub(crate) fn note_memory(&self, total: usize) {
        self.memory_peak.fetch_max(total, Ordering::Relaxed);
    }

    pub(crate) fn memory_peak(&self) -> usize {
        self.memory_peak.load(Ordering::Relaxed)
    }

    pub(crate) fn note_log_dropped(&self, bytes: usize) {
        self.log_dropped.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn log_dropped(&self) -> u64 {
        self.log_dropped.load(Ordering::Relaxed)
    }
}
