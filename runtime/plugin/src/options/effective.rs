//! Options with every gap filled: what the worker acts on.

use std::time::Duration;

use rwork_protocol::QueueName;
use rwork_sandbox::Limits;

use crate::options::value::exponential;
use crate::options::{Backoff, Ceilings, ContentTypes, ExceptionNames, MaxRetries, RateLimit, TaskOptions};

/// Celery's `Task.max_retries`.
const MAX_RETRIES_DEFAULT: u32 = 3;

/// Celery's `Task.default_retry_delay`.
const RETRY_DELAY_DEFAULT: Duration = Duration::from_secs(180);

/// Celery's `retry_backoff_max`.
const RETRY_BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(600);

/// The lowest layers: the worker's own settings, and the ceilings over all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerDefaults {
    /// What applies where no layer above says anything (`task_time_limit`, `task_acks_late`, … of `rwork.toml`).
    pub options: TaskOptions,
    /// What nothing exceeds.
    pub ceilings: Ceilings,
}

/// Options of one task, complete. Built once per load, read for every message.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveOptions {
    /// Attempts after the first.
    pub max_retries: MaxRetries,
    /// Delay of a retry that names none.
    pub default_retry_delay: Duration,
    /// Retried without being asked.
    pub autoretry_for: ExceptionNames,
    /// Not retried, although named above.
    pub dont_autoretry_for: ExceptionNames,
    /// Delay of automatic retries.
    pub retry_backoff: Backoff,
    /// Longest such delay.
    pub retry_backoff_max: Duration,
    /// Whether such a delay is drawn at random.
    pub retry_jitter: bool,
    /// Starts per second on this worker; none: unlimited.
    pub rate_limit: Option<RateLimit>,
    /// Hard limit; none: no limit.
    pub time_limit: Option<Duration>,
    /// Soft limit; none: no limit.
    pub soft_time_limit: Option<Duration>,
    /// Memory cap, in bytes.
    pub memory_bytes_max: usize,
    /// Largest result, in bytes.
    pub result_bytes_max: usize,
    /// Most log output, in bytes.
    pub log_bytes_max: usize,
    /// Acknowledge after the result is stored.
    pub acks_late: bool,
    /// Acknowledge failed tasks (late ack); false: reject.
    pub acks_on_failure: bool,
    /// Acknowledge tasks ended at the hard limit (late ack); false: requeue.
    pub acks_on_timeout: bool,
    /// A task whose sandbox ended in a trap or for want of memory goes back to its queue, counted (late ack); false: it
    /// fails. A message whose *worker* died always goes back.
    pub reject_on_worker_lost: bool,
    /// Store no result.
    pub ignore_result: bool,
    /// Store failures although `ignore_result` is set.
    pub store_errors_even_if_ignored: bool,
    /// Store STARTED.
    pub track_started: bool,
    /// Queue when the sender names none.
    pub queue: Option<QueueName>,
    /// Priority when the sender names none.
    pub priority: Option<u8>,
    /// Expiry when the sender names none.
    pub expires: Option<Duration>,
    /// Content types that the task reads.
    pub accepts: ContentTypes,
    /// The cleanup export is called after a kill.
    pub cleanup: bool,
    /// Kept for limits that come with a message.
    pub ceilings: Ceilings,
}

impl TaskOptions {
    /// Fills every gap: from the worker's defaults, then with the built-in values; then applies the ceilings.
    pub fn resolve(self, defaults: &WorkerDefaults) -> EffectiveOptions {
        let own = self.over(&defaults.options);
        let built_in = Limits::default();
        let ceilings = defaults.ceilings;
        let flag = |value: Option<bool>, default: bool| value.unwrap_or(default);
        let bytes = |value: Option<crate::ByteSize>, default: usize, max: Option<crate::ByteSize>| {
            value.map_or(default, crate::ByteSize::bytes).min(max.map_or(usize::MAX, crate::ByteSize::bytes))
        };
        EffectiveOptions {
            max_retries: own.max_retries.unwrap_or(MaxRetries::AtMost(MAX_RETRIES_DEFAULT)),
            default_retry_delay: own.default_retry_delay.map_or(RETRY_DELAY_DEFAULT, |delay| delay.0),
            autoretry_for: own.autoretry_for.unwrap_or_default(),
            dont_autoretry_for: own.dont_autoretry_for.unwrap_or_default(),
            retry_backoff: own.retry_backoff.unwrap_or(Backoff::Off),
            retry_backoff_max: own.retry_backoff_max.map_or(RETRY_BACKOFF_MAX_DEFAULT, |max| max.0),
            retry_jitter: flag(own.retry_jitter, true),
            rate_limit: own.rate_limit.filter(|rate| rate.per_second().is_some()),
            time_limit: ceilings.hard(own.time_limit.map_or(built_in.hard_time, |limit| limited(limit.0))),
            soft_time_limit: ceilings
                .soft(own.soft_time_limit.map_or(built_in.soft_time, |limit| limited(limit.0))),
            memory_bytes_max: bytes(own.memory, built_in.memory_bytes_max, ceilings.max_memory),
            result_bytes_max: bytes(own.result_bytes, built_in.result_bytes_max, ceilings.max_result_bytes),
            log_bytes_max: bytes(own.log_bytes, built_in.log_bytes_max, ceilings.max_log_bytes),
            acks_late: flag(own.acks_late, true),
            acks_on_failure: flag(own.acks_on_failure.or(own.acks_on_failure_or_timeout), true),
            acks_on_timeout: flag(own.acks_on_timeout.or(own.acks_on_failure_or_timeout), true),
            reject_on_worker_lost: flag(own.reject_on_worker_lost, false),
            ignore_result: flag(own.ignore_result, false),
            store_errors_even_if_ignored: flag(own.store_errors_even_if_ignored, false),
            track_started: flag(own.track_started, false),
            queue: own.queue.map(|queue| queue.0),
            priority: own.priority,
            expires: own.expires.map(|expires| expires.0),
            accepts: own.accepts.unwrap_or_default(),
            cleanup: flag(own.cleanup, false),
            ceilings,
        }
    }
}

impl EffectiveOptions {
    /// The sandbox's limits for one message, whose `timelimit` header may replace the time limits.
    ///
    /// As in Celery, a header of `null` or 0 leaves the task's own limit; the ceilings hold for the header too.
    pub fn limits_for(&self, message_hard: Option<Duration>, message_soft: Option<Duration>) -> Limits {
        let given = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        Limits {
            hard_time: given(message_hard).map_or(self.time_limit, |limit| self.ceilings.hard(Some(limit))),
            soft_time: given(message_soft)
                .map_or(self.soft_time_limit, |limit| self.ceilings.soft(Some(limit))),
            memory_bytes_max: self.memory_bytes_max,
            result_bytes_max: self.result_bytes_max,
            log_bytes_max: self.log_bytes_max,
            ..Limits::default()
        }
    }

    /// Whether a failure of this class is retried without being asked (`autoretry_for` less `dont_autoretry_for`).
    pub fn autoretries(&self, exc_type: &str, exc_module: Option<&str>) -> bool {
        self.autoretry_for.contains(exc_type, exc_module)
            && !self.dont_autoretry_for.contains(exc_type, exc_module)
    }

    /// Delay before an automatic retry, after `retries` retries so far. `draw(n)` returns a number from 0 to n, for the
    /// jitter (`celery/utils/time.py`, `get_exponential_backoff_interval`).
    pub fn autoretry_delay(&self, retries: u32, draw: impl FnOnce(u64) -> u64) -> Duration {
        let Backoff::From(factor) = self.retry_backoff else { return self.default_retry_delay };
        let full = exponential(factor, retries, self.retry_backoff_max);
        if self.retry_jitter { Duration::from_secs(draw(full.as_secs()).min(full.as_secs())) } else { full }
    }
}

impl Ceilings {
    fn hard(&self, limit: Option<Duration>) -> Option<Duration> {
        let ceiling = self.max_time_limit.and_then(|max| limited(max.0));
        match (limit, ceiling) {
            (Some(limit), Some(max)) => Some(limit.min(max)),
            (limit, max) => limit.or(max),
        }
    }

    fn soft(&self, limit: Option<Duration>) -> Option<Duration> {
        let ceiling = self.max_soft_time_limit.and_then(|max| limited(max.0));
        limit.map(|limit| ceiling.map_or(limit, |max| limit.min(max)))
    }
}

/// Zero means no limit.
fn limited(limit: Duration) -> Option<Duration> {
    (!limit.is_zero()).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> TaskOptions {
        TaskOptions::from_json(json).unwrap()
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let effective = TaskOptions::default().resolve(&WorkerDefaults::default());
        assert_eq!(effective.max_retries, MaxRetries::AtMost(3));
        assert_eq!(effective.default_retry_delay, Duration::from_secs(180));
        assert_eq!(effective.retry_backoff_max, Duration::from_secs(600));
        assert!(
            effective.retry_jitter
                && effective.acks_late
                && effective.acks_on_failure
                && effective.acks_on_timeout
        );
        assert!(!effective.reject_on_worker_lost);
        assert_eq!(effective.limits_for(None, None), Limits::default());
    }

    #[test]
    fn the_first_layer_that_is_set_wins() {
        // Each row: deployment, manifest, declaration, worker default; header; the hard limit that holds.
        let table = [
            (["{}", "{}", "{}", "{}"], None, seconds(1_800)),
            (["{}", "{}", "{}", r#"{"time_limit":4}"#], None, seconds(4)),
            (["{}", "{}", r#"{"time_limit":3}"#, r#"{"time_limit":4}"#], None, seconds(3)),
            (["{}", r#"{"time_limit":2}"#, r#"{"time_limit":3}"#, r#"{"time_limit":4}"#], None, seconds(2)),
            ([r#"{"time_limit":1}"#, r#"{"time_limit":2}"#, r#"{"time_limit":3}"#, "{}"], None, seconds(1)),
            ([r#"{"time_limit":1}"#, "{}", "{}", "{}"], seconds(9), seconds(9)),
            ([r#"{"time_limit":1}"#, "{}", "{}", "{}"], seconds(0), seconds(1)),
            ([r#"{"time_limit":0}"#, r#"{"time_limit":2}"#, "{}", "{}"], None, None),
        ];
        for ([deployment, manifest, declaration, worker], header, expected) in table {
            let defaults = WorkerDefaults { options: options(worker), ..WorkerDefaults::default() };
            let laid = options(deployment).over(&options(manifest).over(&options(declaration)));
            let limits = laid.resolve(&defaults).limits_for(header, None);
            assert_eq!(
                limits.hard_time, expected,
                "{deployment} {manifest} {declaration} {worker} {header:?}"
            );
        }
    }

    #[test]
    fn nothing_exceeds_a_ceiling() {
        let ceilings: Ceilings = toml::from_str(
            "max_time_limit = 10\nmax_soft_time_limit = 5\nmax_memory = \"1MiB\"\nmax_log_bytes = 7",
        )
        .unwrap();
        let defaults = WorkerDefaults { ceilings, ..WorkerDefaults::default() };
        // Each row: own limits; header; what holds.
        let table = [
            ("{}", (None, None), (seconds(10), None)),
            (r#"{"time_limit":0}"#, (None, None), (seconds(10), None)),
            (r#"{"time_limit":60,"soft_time_limit":30}"#, (None, None), (seconds(10), seconds(5))),
            (r#"{"time_limit":6,"soft_time_limit":3}"#, (None, None), (seconds(6), seconds(3))),
            ("{}", (seconds(60), seconds(60)), (seconds(10), seconds(5))),
            ("{}", (seconds(2), seconds(1)), (seconds(2), seconds(1))),
        ];
        for (own, (hard, soft), expected) in table {
            let limits = options(own).resolve(&defaults).limits_for(hard, soft);
            assert_eq!((limits.hard_time, limits.soft_time), expected, "{own} {hard:?} {soft:?}");
            assert_eq!((limits.memory_bytes_max, limits.log_bytes_max), (1 << 20, 7), "{own}");
        }
    }

    #[test]
    fn the_combined_ack_switch_yields_to_the_single_ones() {
        let effective = options(r#"{"acks_on_failure_or_timeout":false,"acks_on_timeout":true}"#)
            .resolve(&WorkerDefaults::default());
        assert!(!effective.acks_on_failure && effective.acks_on_timeout);
    }

    #[test]
    fn automatic_retries_follow_celery() {
        let effective = options(
            r#"{"autoretry_for":["Exception"],"dont_autoretry_for":["KeyError"],"retry_backoff":2,"retry_backoff_max":30}"#,
        )
        .resolve(&WorkerDefaults::default());
        assert!(effective.autoretries("ValueError", None));
        assert!(!effective.autoretries("KeyError", Some("builtins")));
        assert_eq!(effective.autoretry_delay(3, |full| full), Duration::from_secs(16));
        assert_eq!(effective.autoretry_delay(9, |full| full), Duration::from_secs(30));
        assert_eq!(effective.autoretry_delay(3, |_| 0), Duration::ZERO);
        let plain = TaskOptions::default().resolve(&WorkerDefaults::default());
        assert_eq!(plain.autoretry_delay(3, |_| 0), Duration::from_secs(180));
    }
}
