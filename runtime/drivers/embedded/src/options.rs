//! How to open the file: options, their defaults and limits, and the URL form of them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rwork_protocol::Timestamp;
use rwork_protocol::service::{Error, RedactedUrl};

/// The file when none is named.
const DEFAULT_PATH: &str = "./rwork.db";
/// Longer than any turn of a living process takes, short enough for people to wait.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Below this a short turn of another process would be an error.
const BUSY_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Above this it would be taken for a hang.
const BUSY_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// What settling needs to go on while the disk is full: room to move the whole write-ahead log (4 MB) into the file, and
/// as much again for what the transactions themselves take.
const BALLAST_BYTES: u64 = 8 << 20;
/// The largest body that a worker accepts (16 MiB), and room for its headers.
const MESSAGE_BYTES_MAX: usize = 17 << 20;
/// The largest result (16 MiB), its escapes, and a traceback.
const RECORD_BYTES_MAX: usize = 32 << 20;
/// SQLite's own limit for one value is 1 GB; rows that large would stop everybody else for seconds.
const BYTES_MAX_CEILING: usize = 512 << 20;
/// Expired results are only invisible until they are swept, so that a minute costs nothing but room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How to open an embedded broker. Every field has a default.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file, relative to the working directory; created, with its folders, when missing.
    /// Default `./rwork.db`.
    pub path: PathBuf,
    /// What a commit survives. Default [`Synchronous::Normal`].
    pub synchronous: Synchronous,
    /// Longest wait of a call for another process to unlock the file, before it fails with an error to be retried:
    /// 0.1 to 60 s. Default 5 s.
    pub busy_timeout: Duration,
    /// Use the file on a network file system, where neither SQLite nor rwork can keep its promises. Default false.
    pub force: bool,
    /// Largest message, headers and body together, in bytes: 1 to 512 MiB. Default 17 MiB.
    pub message_bytes_max: usize,
    /// Largest encoded record, in bytes: 1 to 512 MiB. Default 32 MiB.
    pub record_bytes_max: usize,
    /// Size of the file that is given up for settling when the disk is full, in bytes; 0: none, and a full disk
    /// stops workers too. Default 8 MiB; with a smaller one the write-ahead log is kept smaller.
    pub ballast_bytes: u64,
    /// How often expired results are looked for. Default 60 s.
    pub sweep_interval: Duration,
    /// Wall clock for due times and expiry. It must be the same for all processes that share the file.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: PathBuf::from(DEFAULT_PATH),
            synchronous: Synchronous::default(),
            busy_timeout: BUSY_TIMEOUT,
            force: false,
            message_bytes_max: MESSAGE_BYTES_MAX,
            record_bytes_max: RECORD_BYTES_MAX,
            ballast_bytes: BALLAST_BYTES,
            sweep_interval: SWEEP_INTERVAL,
            clock: Clock::default(),
        }
    }
}

impl Options {
    /// Reads `embedded:PATH?name=value&…`, also written `embedded://PATH`; no path means `./rwork.db`.
    ///
    /// The path is taken as it stands, up to the first `?`. Parameters: `synchronous` (`normal`, `full`),
    /// `busy_timeout` (seconds), `force` (`1`), `ballast_bytes`, `message_bytes_max`, `record_bytes_max`, `sweep_interval`
    /// (seconds). `lease`, of the edition before, has no effect.
    ///
    /// # Errors
    /// [`Error::Url`] with what was expected: another scheme, an unknown or repeated parameter, a value out of range.
    pub fn parse_url(url: &str) -> Result<Self, Error> {
        Self::read_url(url).map_err(|expected| Error::Url { url: RedactedUrl::new(url), expected })
    }

    fn read_url(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("embedded:").ok_or("`embedded:PATH`")?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Self::default();
        if !path.is_empty() {
            options.path = PathBuf::from(path);
        }
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}=VALUE`"))?;
            if seen.contains(&name) {
                return Err(format!("parameter `{name}` once"));
            }
            seen.push(name);
            options.set(name, value)?;
        }
        options.check()?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "synchronous" => self.synchronous = Synchronous::parse(value)?,
            "busy_timeout" => self.busy_timeout = seconds(name, value)?,
            "force" => self.force = yes(name, value)?,
            "lease" => {
                seconds(name, value)?;
                tracing::warn!("`lease` has no effect on an embedded broker any more: remove it");
            }
            "sweep_interval" => self.sweep_interval = seconds(name, value)?,
            "ballast_bytes" => self.ballast_bytes = number(name, value)?,
            "message_bytes_max" => self.message_bytes_max = number(name, value)?,
            "record_bytes_max" => self.record_bytes_max = number(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let bytes = 1..=BYTES_MAX_CEILING;
        if !(BUSY_TIMEOUT_MIN..=BUSY_TIMEOUT_MAX).contains(&self.busy_timeout) {
            let (least, most) = (BUSY_TIMEOUT_MIN.as_secs_f64(), BUSY_TIMEOUT_MAX.as_secs());
            let got = self.busy_timeout.as_secs_f64();
            return Err(format!("`busy_timeout` to be {least}..={most} seconds (not {got})"));
        }
        for (name, value) in
            [("message_bytes_max", self.message_bytes_max), ("record_bytes_max", self.record_bytes_max)]
        {
            if !bytes.contains(&value) {
                return Err(format!("`{name}` to be 1..={BYTES_MAX_CEILING} (not {value})"));
            }
        }
        if self.sweep_interval.is_zero() {
            return Err("`sweep_interval` to be more than 0 seconds".to_owned());
        }
        Ok(())
    }
}

const PARAMETERS: [&str; 7] = [
    "synchronous",
    "busy_timeout",
    "force",
    "ballast_bytes",
    "message_bytes_max",
    "record_bytes_max",
    "sweep_interval",
];

fn unknown(name: &str) -> String {
    let near = PARAMETERS
        .iter()
        .map(|known| (strsim::jaro_winkler(known, name), known))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    match near {
        Some((_, known)) => format!("a known parameter, not `{name}` (did you mean `{known}`?)"),
        None => format!("one of the parameters `{}`, not `{name}`", PARAMETERS.join("`, `")),
    }
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    value
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{name}` to be a number of seconds (not `{value}`)"))
}

fn yes(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("`{name}` to be `1` or `0` (not `{value}`)")),
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{name}` to be a whole number of bytes (not `{value}`)"))
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// The death of any process; a power loss or kernel crash may take the last commits. The file stays whole.
    #[default]
    Normal,
    /// A power loss too: every commit waits for the disk.
    Full,
}

impl Synchronous {
    fn parse(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().as_str() {
            "normal" => Ok(Self::Normal),
            "full" => Ok(Self::Full),
            _ => Err(format!("`synchronous` to be `normal` or `full` (not `{word}`)")),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Full => "FULL",
        }
    }
}

/// A wall clock. Default: the system's.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks `now`; for tests.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| Timestamp::from_system(SystemTime::now()))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_urls_say_what_would_do() {
        for (url, text) in [
            ("redis://x", "expected `embedded:PATH`, got `redis://x`"),
            ("embedded:a?synchronous", "expected `synchronous=VALUE`"),
            ("embedded:a?synchronous=extra", "`normal` or `full` (not `extra`)"),
            ("embedded:a?syncronous=full", "did you mean `synchronous`?"),
            ("embedded:a?zzz=1", "one of the parameters `synchronous`, `busy_timeout`"),
            ("embedded:a?force=1&force=1", "parameter `force` once"),
            ("embedded:a?force=yes", "`force` to be `1` or `0` (not `yes`)"),
            ("embedded:a?busy_timeout=soon", "number of seconds (not `soon`)"),
            ("embedded:a?busy_timeout=-1", "number of seconds (not `-1`)"),
            ("embedded:a?busy_timeout=61", "`busy_timeout` to be 0.1..=60 seconds (not 61)"),
            ("embedded:a?message_bytes_max=0", "`message_bytes_max` to be 1..="),
            ("embedded:a?ballast_bytes=4MB", "whole number of bytes (not `4MB`)"),
            ("embedded:a?sweep_interval=0", "more than 0 seconds"),
        ] {
            let said = Options::parse_url(url).unwrap_err().to_string();
            assert!(said.contains(text), "{url}: {said}");
        }
    }

    #[test]
    fn good_urls() {
        for (url, path) in [
            ("embedded:", "./rwork.db"),
            ("embedded://", "./rwork.db"),
            ("embedded:./rwork.db", "./rwork.db"),
            ("embedded:/var/lib/q.db", "/var/lib/q.db"),
            ("embedded:///var/lib/q.db", "/var/lib/q.db"),
            ("embedded://a b%20.db?lease=2", "a b%20.db"),
        ] {
            assert_eq!(Options::parse_url(url).unwrap().path, PathBuf::from(path), "{url}");
        }
        let options =
            Options::parse_url("embedded:q.db?synchronous=FULL&busy_timeout=0.5&ballast_bytes=0&force=1")
                .unwrap();
        assert_eq!(options.synchronous, Synchronous::Full);
        assert_eq!((options.busy_timeout, options.force), (Duration::from_millis(500), true));
        assert_eq!(options.ballast_bytes, 0);
    }
}
