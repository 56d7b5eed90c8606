//! Time, passed in: the wall's, and the machine's since it was started. Pauses are `tokio::time`, which tests pause.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use rwork_protocol::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Wall time: due times, expiry, `date_done`. Never used to measure.
    fn now(&self) -> Timestamp;

    /// Time since some moment, never set back; it goes on while the machine is suspended. Measures how old a renewal is.
    fn boot(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }

    fn boot(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }
}
