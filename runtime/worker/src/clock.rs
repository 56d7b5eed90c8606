//! Wall time, passed in. Monotonic time is `tokio::time`, which tests pause.

use std::time::SystemTime;

use rwork_protocol::Timestamp;

/// Tells the wall time: due times, expiry, `date_done`. Never used to measure.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }
}
