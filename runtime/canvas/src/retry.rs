//! Running again: the message of the next attempt, and when (`celery/app/task.py: retry`, `celery/utils/time.py`).

use std::time::Duration;

use bytes::Bytes;
use rwork_protocol::{QueueName, TaskMessage, Timestamp, expiration, repr};

use crate::options::Options;
use crate::{Error, Outgoing};

/// What the next attempt is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySpec<'a> {
    /// The wall clock.
    pub now: Timestamp,
    /// When it may start.
    pub eta: Timestamp,
    /// Positional arguments in place of the old ones: one JSON array.
    pub args: Option<Bytes>,
    /// Keyword arguments in place of the old ones: one JSON object.
    pub kwargs: Option<Bytes>,
    /// Message options by Celery's names, one JSON object; empty: none. `eta` and `countdown` are not among them, and neither
    /// is what ties the attempt to its workflow.
    pub options: &'a [u8],
}

/// The message of the next attempt: the same id and everything else, one retry more.
///
/// Its `parent_id` is the original's, or the task's own id when that had none, as Celery has it.
///
/// # Errors
/// When an option can't be understood.
pub fn retry(message: &TaskMessage, queue: &QueueName, spec: RetrySpec<'_>) -> Result<Outgoing, Error> {
    let options = Options::parse(spec.options, spec.now)?;
    let mut next = message.clone();
    let headers = &mut next.headers;
    headers.retries = headers.retries.saturating_add(1);
    headers.eta = Some(spec.eta);
    headers.parent_id.get_or_insert_with(|| message.headers.id.clone());
    headers.root_id.get_or_insert_with(|| message.headers.id.clone());
    next.args = spec.args.unwrap_or(next.args);
    next.kwargs = spec.kwargs.unwrap_or(next.kwargs);
    // Anew even where nothing has changed: the producer may have sent none (protocol v1), or words of its own.
    headers.argsrepr = Some(repr::args(&next.args));
    headers.kwargsrepr = Some(repr::kwargs(&next.kwargs));
    let to = options.queue.clone().unwrap_or_else(|| queue.clone());
    options.override_features(&mut next);
    next.properties.expiration = next.headers.expires.map(|at| expiration(at, spec.now));
    Ok(Outgoing { queue: Some(to), message: next, eta: Some(spec.eta) })
}

/// Whether another attempt is allowed. `retries`: attempts so far that ended in one; `limit`: `None` for no end.
pub fn may_retry(retries: u32, limit: Option<u32>) -> bool {
    limit.is_none_or(|limit| retries < limit)
}

/// How long to wait between attempts (Celery's `retry_backoff`, `retry_backoff_max`, `retry_jitter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay in seconds, at least 1; doubled with each retry.
    pub factor: u32,
    /// The longest delay in whole seconds.
    pub max: Duration,
    /// True: a random number of whole seconds up to the delay.
    pub jitter: bool,
}

impl Default for Backoff {
    /// Celery's `retry_backoff = True`: 1 s doubled up to 600 s, with jitter.
    fn default() -> Self {
        Self { factor: 1, max: Duration::from_secs(600), jitter: true }
    }
}

/// The delay before the next attempt. `retries`: attempts so far that ended in one; `random`: from 0 up to but not 1.
pub fn backoff(policy: Backoff, retries: u32, random: f64) -> Duration {
    let doubled = u64::from(policy.factor.max(1)).saturating_mul(2_u64.saturating_pow(retries));
    let delay = doubled.min(policy.max.as_secs());
    if !policy.jitter {
        return Duration::from_secs(delay);
    }
    // Exact enough: delays are far below 2^53 seconds, and the result is cut back to what was asked for.
    let share = (random.clamp(0.0, 1.0) * (delay.saturating_add(1)) as f64) as u64;
    Duration::from_secs(share.min(delay))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rwork_protocol::{DecodeLimits, NewTask, TaskId, TaskName, decode, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(10_000);
    const LATER: Timestamp = Timestamp::from_millis(13_000);

    fn message() -> TaskMessage {
        let task = NewTask {
            id: Some(TaskId::new("me").unwrap()),
            expires: Some(Timestamp::from_millis(60_000)),
            priority: Some(3),
            headers: vec![("x".to_owned(), json::string("kept"))],
            shadow: Some("shown".to_owned()),
            origin: Some("gen1@host".to_owned()),
            reply_to: Some("rpc".to_owned()),
            ..NewTask::new(TaskName::new("t").unwrap()).args("[1]")
        };
        task.build(Timestamp::default()).unwrap()
    }

    fn spec(options: &[u8]) -> RetrySpec<'_> {
        RetrySpec { now: NOW, eta: LATER, args: None, kwargs: None, options }
    }

    fn again(message: &TaskMessage, spec: RetrySpec<'_>) -> Result<Outgoing, Error> {
        retry(message, &QueueName::new("here").unwrap(), spec)
    }

    #[test]
    fn everything_is_kept_but_what_must_change() {
        let first = message();
        let second = again(&first, spec(b"")).unwrap();
        assert_eq!((second.queue.unwrap().as_str(), second.eta), ("here", Some(LATER)));
        let mut expected = first.clone();
        expected.headers.retries = 1;
        expected.headers.eta = Some(LATER);
        expected.headers.parent_id = Some(first.headers.id.clone());
        expected.properties.expiration = Some("50000".to_owned());
        assert_eq!(second.message, expected);

        // Not what a broker or kombu has added to this one delivery.
        let mut wire = first.encode();
        let added = br#"{"x-death": [], "redelivered": true, "compression": null, "#;
        wire.headers = [&added[..], wire.headers.get(1..).unwrap_or_default()].concat().into();
        let again_delivered = decode(&wire, &DecodeLimits::default()).unwrap();
        assert_eq!(again(&again_delivered, spec(b"")).unwrap().message.headers.other, expected.headers.other);

        // What the arguments look like is said anew, whatever the producer had said or not.
        let mut silent = first.clone();
        (silent.headers.argsrepr, silent.headers.kwargsrepr) = (None, Some("secret".to_owned()));
        let told = again(&silent, spec(b"")).unwrap().message.headers;
        assert_eq!((told.argsrepr.as_deref(), told.kwargsrepr.as_deref()), (Some("(1,)"), Some("{}")));

        let mut child = first;
        child.headers.parent_id = Some(TaskId::new("parent").unwrap());
        let third = again(&child, spec(b"{}")).unwrap();
        assert_eq!(third.message.headers.parent_id.unwrap().as_str(), "parent");
    }

    #[test]
    fn arguments_and_options_can_be_replaced() {
        let options = br#"{"queue": "there", "priority": 9, "time_limit": 5, "headers": {"x": 2}, "task_id": "other", "countdown": 99}"#;
        let spec = RetrySpec { args: Some(Bytes::from_static(b"[2]")), ..spec(options) };
        let next = again(&message(), spec).unwrap();
        assert_eq!(next.queue.unwrap().as_str(), "there");
        assert_eq!(
            (&*next.message.args, next.message.headers.argsrepr.as_deref()),
            (&b"[2]"[..], Some("(2,)"))
        );
        assert_eq!(next.message.properties.priority, Some(9));
        assert_eq!(next.message.headers.hard_time_limit, Some(Duration::from_secs(5)));
        assert_eq!(next.message.headers.other("x").unwrap(), "2");
        assert_eq!((next.message.headers.id.as_str(), next.eta), ("me", Some(LATER)));
    }

    #[test]
    fn bad_options_are_named() {
        assert!(again(&message(), spec(b"[]")).unwrap_err().to_string().contains("message options"));
        assert!(
            again(&message(), spec(b"{\"priority\": -1}")).unwrap_err().to_string().contains("`priority`")
        );
    }

    #[test]
    fn limits_count_attempts_after_the_first() {
        assert!(may_retry(0, Some(1)) && !may_retry(1, Some(1)) && !may_retry(0, Some(0)));
        assert!(may_retry(u32::MAX, None));
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let plain = Backoff { factor: 2, max: Duration::from_secs(10), jitter: false };
        let delays: Vec<u64> = (0..5).map(|retries| backoff(plain, retries, 0.0).as_secs()).collect();
        assert_eq!(delays, [2, 4, 8, 10, 10]);
        assert_eq!(backoff(Backoff { factor: 0, ..plain }, 0, 0.9), Duration::from_secs(1));
        assert_eq!(backoff(Backoff { jitter: true, ..plain }, 2, 0.999), Duration::from_secs(8));
        assert_eq!(backoff(Backoff { jitter: true, ..plain }, 2, 0.0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_delay_is_over_the_longest(factor in any::<u32>(), max in 0_u64..10_000_000, retries in any::<u32>(), random in 0.0..1.0, jitter in any::<bool>()) {
            let policy = Backoff { factor, max: Duration::from_secs(max), jitter };
            prop_assert!(backoff(policy, retries, random) <= policy.max);
            let certain = Backoff { jitter: false, ..policy };
            prop_assert!(backoff(certain, retries, random) >= backoff(policy, retries, random));
        }

        #[test]
        fn no_options_panic(options in "[\\[\\]{}:,\" a-z0-9.-]{0,60}") {
            let _ = again(&message(), spec(options.as_bytes()));
        }
    }
}
