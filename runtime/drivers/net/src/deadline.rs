//! One time limit for all steps of an attempt.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::Failure;

/// Until when something must be done. No step begins it anew.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    /// How long that was from the beginning on.
    time: Duration,
}

impl Deadline {
    /// After this time.
    pub fn after(time: Duration) -> Self {
        Self { at: Instant::now() + time, time }
    }

    /// The same moment, counted from now: of a list, each server has the rest of what there is for all.
    pub fn rest(self) -> Self {
        Self { time: self.left(), ..self }
    }

    /// This, or after so long from now if that is sooner.
    pub fn at_most(self, time: Duration) -> Self {
        Self::after(time.min(self.left()))
    }

    /// Time until then.
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Waits for a step. `late` is told how long there was, in seconds to a tenth.
    pub async fn bound<T>(
        self,
        step: impl Future<Output = T>,
        late: impl FnOnce(f64) -> Failure,
    ) -> Result<T, Failure> {
        let seconds = (self.time.as_secs_f64() * 10.0).round() / 10.0;
        timeout_at(self.at, step).await.map_err(|_| late(seconds))
    }
}
