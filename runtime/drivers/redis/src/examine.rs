//! Facts about a server, for `rwork doctor`. Judges nothing, changes nothing.

mod ask;
mod info;

use std::time::Duration;

use rwork_protocol::service::Error;

pub use self::info::Facts;
use crate::handle::Redis;

/// Facts that a server tells of itself, and measurements.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Examination {
    /// The server that was examined, without its password: of a fail-over list or with Sentinel, the one in use.
    pub server: String,
    /// `7.0.15`
    pub version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: String,
    /// `master` or `replica`.
    pub role: String,
    /// Answers to `INFO` and `CONFIG GET`, which are often forbidden.
    pub said: Facts,
    /// Round trips, in the order they were made.
    pub round_trips: Vec<Duration>,
    /// Its clock minus ours, in seconds, within half a round trip.
    pub clock_ahead_s: f64,
    /// Whether it tells us of new messages (`CLIENT TRACKING`); otherwise rwork has to poll.
    pub tracking: bool,
    /// Whether we may publish to the channels that results are told on. Since Redis 7 a new user may not.
    pub publishes: bool,
    /// kombu's and rwork's own keys that are in use, by name.
    pub keys: Vec<KeyInUse>,
}

/// A key of kombu's or rwork's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInUse {
    /// Its name, prefix included.
    pub name: String,
    /// What it is, whatever it should be: `list`, `hash`, `zset`, `set`, `string`.
    pub kind: String,
    /// Entries; 1 for a string.
    pub entries: u64,
}

impl Redis {
    /// Asks the server what it is and how it fares: about thirty small commands, and a bounded scan for key names.
    ///
    /// # Errors
    /// When the server can't be reached. What it refuses to tell is `None`.
    pub async fn examine(&self) -> Result<Examination, Error> {
        ask::examine(&self.inner).await
    }
}
