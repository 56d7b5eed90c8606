//! Settings that may be changed while a worker runs: in one place, swapped as a whole, read anew at each use.

use crate::config::WorkerConfig;

/// The settings of a worker that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// Invocations that may be on a CPU at once, ≥ 1.
    pub(crate) concurrency: usize,
    /// Messages held unstarted per CPU slot, ≥ 1.
    pub(crate) prefetch_multiplier: usize,
    /// Messages held unstarted at most, ≥ 1.
    pub(crate) prefetch_max: usize,
}

impl From<&WorkerConfig> for Live {
    fn from(config: &WorkerConfig) -> Self {
        Self {
            concurrency: config.concurrency,
            prefetch_multiplier: config.prefetch_multiplier,
            prefetch_max: config.prefetch_max,
        }
    }
}
