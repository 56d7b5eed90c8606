//! `rwork:task/limits`: how long there is, and the wish to stop.

use std::time::{Duration, Instant};

use super::stop_reason;
use super::wait::{Ending, wait};
use crate::bindings::rwork::task::limits::{Host, StopReason, TimeLeft};
use crate::state::State;

impl Host for State {
    fn stop_requested(&mut self) -> wasmtime::Result<Option<StopReason>> {
        Ok(self.control.stop_requested().map(stop_reason))
    }

    fn remaining(&mut self) -> wasmtime::Result<TimeLeft> {
        let now = Instant::now();
        let left = |deadline: Option<Instant>| {
            deadline.map(|deadline| millis(deadline.saturating_duration_since(now)))
        };
        Ok(TimeLeft { soft_ms: left(self.control.soft), hard_ms: left(self.control.hard) })
    }

    async fn sleep(&mut self, duration_ms: u64) -> wasmtime::Result<Result<(), StopReason>> {
        if let Some(reason) = self.control.stop_requested() {
            return Ok(Err(stop_reason(reason)));
        }
        // The worker polls guests within its I/O runtime, so this timer is out of reach of busy guests.
        let sleep = tokio::time::sleep(Duration::from_millis(duration_ms));
        Ok(match wait(&self.control, false, sleep).await? {
            Ending::Done(()) => Ok(()),
            Ending::Stopped(reason) => Err(stop_reason(reason)),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
