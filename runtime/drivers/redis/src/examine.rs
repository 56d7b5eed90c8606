//! Facts about a server, for `rwork doctor`. Judges nothing, changes nothing.

mod ask;
mod info;

use std::time::Duration;

use rwork_protocol::service::Error;

use crate::handle::Redis;

/// What a server says of itself, and what was measured. `None` where it would not say: `CONFIG` and `INFO` are often
/// forbidden.
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
    /// Time since its start.
    pub uptime: Option<Duration>,
    /// Bytes; 0: no limit.
    pub maxmemory: Option<u64>,
    /// `noeviction`, `allkeys-lru`, ...
    pub maxmemory_policy: Option<String>,
    /// Bytes.
    pub used_memory: Option<u64>,
    /// Keys that it has evicted since its start: messages may have been among them.
    pub evicted_keys: Option<u64>,
    /// Whether writes are kept in an append-only file.
    pub aof_enabled: Option<bool>,
    /// `always`, `everysec` or `no`.
    pub appendfsync: Option<String>,
    /// Whether the last write of that file succeeded.
    pub last_aof_write_ok: Option<bool>,
    /// Snapshot rules, `3600 1 300 100`; empty: none.
    pub save: Option<String>,
    /// Whether the last snapshot succeeded.
    pub last_bgsave_ok: Option<bool>,
    /// Writes since the last snapshot.
    pub changes_since_save: Option<u64>,
    /// Replicas that follow it now.
    pub connected_replicas: Option<u64>,
    /// Replicas without which it takes no writes (`min-replicas-to-write`).
    pub min_replicas_to_write: Option<u64>,
    /// Connections now.
    pub connected_clients: Option<u64>,
    /// Connections at most.
    pub maxclients: Option<u64>,
    /// Seconds after which it closes quiet connections; 0: never.
    pub client_timeout_s: Option<u64>,
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
