//! What a task can be told, by Celery's names, and how the layers that tell it are laid over each other.
//!
//! One struct of optional fields serves every layer: deployment configuration, manifest, declaration in code, worker
//! defaults. [`TaskOptions::over`] lays one on the next; [`TaskOptions::resolve`] fills what is left with the built-in
//! values. Nothing here reads a file.

mod effective;
mod value;

pub use effective::{EffectiveOptions, WorkerDefaults};
pub use value::{Backoff, ContentTypes, ExceptionNames, MaxRetries, QueueOption, RateLimit};

use crate::quantity::{ByteSize, Seconds};
use crate::strict::strict;

strict! {
    /// Options of a task, each unset until a layer sets it.
    ///
    /// Durations are seconds or text with a unit, sizes bytes or text with a unit. `null` leaves a key unset, except for
    /// `max_retries`, where it means unlimited as in Celery.
    pub struct TaskOptions("task options") {
        /// Attempts after the first; `null` or `"unlimited"`: no limit. Default 3.
        max_retries: MaxRetries,
        /// Delay of a retry that names none. Default 180 s.
        default_retry_delay: Seconds,
        /// Exceptions that are retried without being asked, by name. Default none.
        autoretry_for: ExceptionNames,
        /// Exceptions that are not, although `autoretry_for` has them. Default none.
        dont_autoretry_for: ExceptionNames,
        /// Exponential delay of automatic retries: `true` (from 1 s) or the first delay in seconds. Default off.
        retry_backoff: Backoff,
        /// Longest such delay. Default 600 s.
        retry_backoff_max: Seconds,
        /// Whether such a delay is drawn at random between nothing and its value. Default true.
        retry_jitter: bool,
        /// Starts per time on one worker: `"10/m"`. Default unlimited.
        rate_limit: RateLimit,
        /// Hard limit, measured from the start of execution; 0: none. Default 30 min.
        time_limit: Seconds,
        /// Soft limit, measured from the start of execution; 0: none. Default none.
        soft_time_limit: Seconds,
        /// Sum over all linear memories. Default 256 MiB.
        memory: ByteSize,
        /// Largest encoded result. Default 16 MiB.
        result_bytes: ByteSize,
        /// Log lines, stdout and stderr together. Default 256 KiB.
        log_bytes: ByteSize,
        /// Acknowledge after the result is stored. Default true (Celery: false).
        acks_late: bool,
        /// Late ack of a failed task: true acknowledges, false rejects. Default true.
        acks_on_failure: bool,
        /// Late ack of a task ended at its hard limit: true acknowledges, false requeues. Default true.
        acks_on_timeout: bool,
        /// Both of the above where they are not set themselves (Celery before 5.7).
        acks_on_failure_or_timeout: bool,
        /// Whether a task that ended in a trap or for want of memory goes back to its queue, counted. Default false.
        reject_on_worker_lost: bool,
        /// Store no result. Default false.
        ignore_result: bool,
        /// Store failures although `ignore_result` is set. Default false.
        store_errors_even_if_ignored: bool,
        /// Store STARTED when a task starts. Default false.
        track_started: bool,
        /// Queue that the task is sent to when the sender names none.
        queue: QueueOption,
        /// Priority when the sender names none.
        priority: u8,
        /// Expiry when the sender names none.
        expires: Seconds,
        /// Content types that the task reads; `"*"`: any. Default JSON.
        accepts: ContentTypes,
        /// Whether the plugin's cleanup export is called after the task was ended from outside. Default false.
        cleanup: bool,
    }
}

strict! {
    /// What no layer exceeds, message headers included; set by the deployment.
    #[derive(Eq, Copy)]
    pub struct Ceilings("ceilings") {
        /// Longest hard limit; a task without one gets this one.
        max_time_limit: Seconds,
        /// Longest soft limit; a task without one stays without.
        max_soft_time_limit: Seconds,
        /// Largest memory cap.
        max_memory: ByteSize,
        /// Largest result.
        max_result_bytes: ByteSize,
        /// Most log bytes.
        max_log_bytes: ByteSize,
    }
}

impl TaskOptions {
    /// Reads the JSON object of a declaration; empty text: no options.
    ///
    /// # Errors
    /// A sentence that names the key, what was expected and what was found.
    pub fn from_json(document: &str) -> Result<Self, String> {
        if document.trim().is_empty() {
            return Ok(Self::default());
        }
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(document)
            .map_err(|error| format!("expected a JSON object of task options: {error}"))?;
        // One key at a time, so that an error can name its key.
        object.into_iter().try_fold(Self::default(), |options, (key, value)| {
            let single = serde_json::Value::Object([(key.clone(), value)].into_iter().collect());
            let set: Self = serde_json::from_value(single).map_err(|error| named(&key, &error))?;
            Ok(set.over(&options))
        })
    }
}

/// Errors about the key itself already name it.
fn named(key: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("unknown key") { text } else { format!("option `{}`: {text}", key.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_declaration_is_read_strictly() {
        let table = [
            ("[]", "expected a JSON object of task options"),
            ("{", "expected a JSON object of task options"),
            (r#"{"max_retry": 1}"#, "unknown key `max_retry` in task options; did you mean `max_retries`?"),
            (r#"{"colour": 1}"#, "unknown key `colour` in task options"),
            (r#"{"max_retries": -1}"#, "option `max_retries`: "),
            (r#"{"priority": 256}"#, "option `priority`: "),
            (r#"{"time_limit": "soon"}"#, "option `time_limit`: expected a duration such as `20s`"),
            (r#"{"rate_limit": "10/week"}"#, "option `rate_limit`: expected a rate such as `10/m`"),
            (r#"{"accepts": []}"#, "option `accepts`: "),
            (r#"{"queue": ""}"#, "option `queue`: "),
            (r#"{"retry_backoff": -2}"#, "option `retry_backoff`: "),
            (r#"{"acks_late": "yes"}"#, "option `acks_late`: "),
        ];
        for (document, expected) in table {
            let error = TaskOptions::from_json(document).unwrap_err();
            assert!(error.contains(expected), "{document}: {error}");
        }
    }

    #[test]
    fn every_option_is_read() {
        let options = TaskOptions::from_json(
            r#"{"max_retries":null,"default_retry_delay":1.5,"autoretry_for":["ValueError"],"dont_autoretry_for":[],
                "retry_backoff":5,"retry_backoff_max":"1m","retry_jitter":false,"rate_limit":"10/m","time_limit":60,
                "soft_time_limit":"30s","memory":"64MiB","result_bytes":1024,"log_bytes":"1KiB","acks_late":false,
                "acks_on_failure":false,"acks_on_timeout":false,"acks_on_failure_or_timeout":true,
                "reject_on_worker_lost":false,"ignore_result":true,"store_errors_even_if_ignored":true,
                "track_started":true,"queue":"mail","priority":9,"expires":3600,"accepts":["json","*"],"cleanup":true}"#,
        )
        .unwrap();
        assert_eq!(options.max_retries, Some(MaxRetries::Unlimited));
        assert_eq!(options.default_retry_delay, Some(Seconds(Duration::from_millis(1_500))));
        assert_eq!(options.retry_backoff, Some(Backoff::From(5)));
        assert_eq!(options.memory, Some(ByteSize(64 << 20)));
        assert_eq!(options.rate_limit.unwrap().per_second(), Some(10.0 / 60.0));
        assert_eq!(options.queue.unwrap().0.as_str(), "mail");
        assert_eq!(options.cleanup, Some(true));
    }

    #[test]
    fn null_is_unset_but_for_retries() {
        let options =
            TaskOptions::from_json(r#"{"time_limit":null,"queue":null,"max_retries":null}"#).unwrap();
        assert_eq!(
            options,
            TaskOptions { max_retries: Some(MaxRetries::Unlimited), ..TaskOptions::default() }
        );
    }

    #[test]
    fn toml_is_read_by_the_same_rules() {
        let options: TaskOptions =
            toml::from_str("max_retries = \"unlimited\"\ntime_limit = \"20s\"").unwrap();
        assert_eq!(options.max_retries, Some(MaxRetries::Unlimited));
        assert_eq!(options.time_limit, Some(Seconds(Duration::from_secs(20))));
        let error = toml::from_str::<TaskOptions>("time_limits = 3").unwrap_err();
        assert_eq!(error.message(), "unknown key `time_limits` in task options; did you mean `time_limit`?");
    }

    #[test]
    fn the_upper_layer_wins_key_by_key() {
        let upper = TaskOptions { priority: Some(1), ..TaskOptions::default() };
        let lower = TaskOptions { priority: Some(2), acks_late: Some(false), ..TaskOptions::default() };
        let laid = upper.over(&lower);
        assert_eq!((laid.priority, laid.acks_late), (Some(1), Some(false)));
    }
}
