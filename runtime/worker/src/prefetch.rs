//! How many messages to hold unstarted: many when tasks are short, so that the broker is paid per batch; few when they are
//! long, so that other workers get their share.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::live::Live;

/// Work held in store per CPU slot. Several times what a batch takes to arrive, far less than anybody waits for.
const HELD: Duration = Duration::from_millis(50);
/// Weight of the newest duration in the mean, as a power of two: 1/16 follows a change within a few dozen tasks.
const WEIGHT_SHIFT: u32 = 4;
/// A mean is believed after this many tasks; before, only the multiplier counts.
const LEARNED: u32 = 16;

/// With nothing started for so long, the tasks that run are long ones.
const STALLED: Duration = Duration::from_secs(1);

/// Number of messages to hold unstarted now.
#[derive(Debug)]
pub(crate) struct Prefetch {
    mean: MeanDuration,
    last_start: Instant,
    /// Nothing has started for a while: as few as the multiplier says, and all of those.
    stalled: bool,
}

impl Prefetch {
    pub(crate) fn new() -> Self {
        Self { mean: MeanDuration::default(), last_start: Instant::now(), stalled: false }
    }

    pub(crate) fn started(&mut self) {
        (self.last_start, self.stalled) = (Instant::now(), false);
    }

    /// A run kept the worker busy for so long.
    pub(crate) fn ran(&mut self, occupied: Duration) {
        self.mean.add(occupied);
    }

    /// Messages to hold unstarted.
    pub(crate) fn target(&self, live: &Live) -> usize {
        prefetch_for(self.mean.get(), live)
    }

    /// Number of messages to ask for now.
    pub(crate) fn room(&self, unstarted: usize, live: &Live) -> usize {
        let target = self.target(live);
        if self.stalled { target.saturating_sub(unstarted) } else { room(unstarted, target) }
    }

    /// Resolves when nothing has started for a while, though something could. Cancel safe.
    pub(crate) async fn stalls(&self, unstarted: usize) {
        if self.stalled || unstarted == 0 {
            return std::future::pending().await;
        }
        sleep_until(self.last_start + STALLED).await;
    }

    /// Nothing has started for a while: tasks have become long, and what was taken in the hope of short ones is for other
    /// workers to run.
    pub(crate) fn stall(&mut self) {
        self.stalled = true;
        self.mean = MeanDuration::of(STALLED);
    }
}

/// A running mean of how long tasks hold the worker up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MeanDuration {
    nanos: u64,
    seen: u32,
}

impl MeanDuration {
    pub(crate) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> WEIGHT_SHIFT);
        self.nanos = match self.seen {
            0 => nanos,
            _ => self.nanos - (self.nanos >> WEIGHT_SHIFT) + (nanos >> WEIGHT_SHIFT),
        };
        self.seen = self.seen.saturating_add(1);
    }

    /// As if every task so far had taken so long.
    pub(crate) fn of(duration: Duration) -> Self {
        Self { nanos: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> WEIGHT_SHIFT), seen: LEARNED }
    }

    /// `None` until enough was seen.
    pub(crate) fn get(self) -> Option<Duration> {
        (self.seen >= LEARNED).then(|| Duration::from_nanos(self.nanos))
    }
}

/// Messages to hold unstarted when a task takes `mean`.
pub(crate) fn prefetch_for(mean: Option<Duration>, live: &Live) -> usize {
    let least = live.concurrency.saturating_mul(live.prefetch_multiplier).min(live.prefetch_max);
    let Some(mean) = mean else { return least };
    let per_slot = HELD.as_nanos().div_ceil(mean.as_nanos().max(1));
    let wanted = live.concurrency.saturating_mul(usize::try_from(per_slot).unwrap_or(usize::MAX));
    wanted.clamp(least, live.prefetch_max)
}

/// Number of messages to ask for now. Nothing until half of the store is used up, so that batches stay large.
pub(crate) fn room(held: usize, prefetch: usize) -> usize {
    if held > prefetch / 2 { 0 } else { prefetch - held }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Live = Live { concurrency: 2, prefetch_multiplier: 4, prefetch_max: 1024 };

    #[test]
    fn short_tasks_come_in_large_batches_and_long_ones_do_not_hog() {
        let check =
            |mean: Option<Duration>, expect: usize| assert_eq!(prefetch_for(mean, &LIVE), expect, "{mean:?}");
        check(None, 8);
        check(Some(Duration::ZERO), 1024);
        check(Some(Duration::from_micros(10)), 1024);
        check(Some(Duration::from_micros(500)), 200);
        check(Some(Duration::from_millis(1)), 100);
        check(Some(Duration::from_millis(49)), 8);
        check(Some(Duration::from_secs(3600)), 8);
    }

    #[test]
    fn the_cap_wins_over_the_multiplier() {
        let live = Live { prefetch_max: 3, ..LIVE };
        assert_eq!(prefetch_for(None, &live), 3);
        assert_eq!(prefetch_for(Some(Duration::from_micros(1)), &live), 3);
    }

    #[test]
    fn half_empty_is_when_more_is_asked_for() {
        for (held, prefetch, expect) in [(0, 1, 1), (1, 1, 0), (5, 8, 0), (4, 8, 4), (0, 8, 8), (9, 8, 0)] {
            assert_eq!(room(held, prefetch), expect, "{held} of {prefetch}");
        }
    }

    #[test]
    fn the_mean_is_silent_at_first_and_follows_a_change() {
        let mut mean = MeanDuration::default();
        for _ in 0..LEARNED - 1 {
            mean.add(Duration::from_micros(20));
        }
        assert_eq!(mean.get(), None);
        mean.add(Duration::from_micros(20));
        assert!(mean.get().unwrap() <= Duration::from_micros(20));
        for _ in 0..100 {
            mean.add(Duration::from_secs(1));
        }
        assert!(mean.get().unwrap() > Duration::from_millis(900));
        mean.add(Duration::MAX);
    }
}
