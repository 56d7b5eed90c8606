//! Celery's native delayed delivery (`kombu/transport/native_delayed_delivery.py`): 28 levels of queues that hold messages
//! for 2^level seconds each.
//!
//! A message enters at `celery_delayed_27` with its delay in whole seconds as 28 binary digits before its routing key:
//! `0.0.….1.0.1.celery` waits in the queues of levels 2 and 0. From the last exchange, `celery_delayed_delivery`, it goes
//! to its queue. So it works for a queue behind a direct exchange too, which Celery's own does not.
//!
//! Seconds are whole: the consumer holds a message for what is left of a second. A header says until when.

mod levels;

use std::time::SystemTime;

use lapin::options::QueueBindOptions;
use lapin::types::{FieldTable, ShortString};
use rwork_protocol::service::Error;
use rwork_protocol::{QueueName, Timestamp};

use crate::declare;
use crate::error::explain;
use crate::handle::Inner;
use crate::link::Link;
use crate::marks::Copy;
use crate::publish::Parcel;
pub(crate) use levels::{LEVELS, level_name};

/// Where messages leave the levels.
pub(crate) const EXIT: &str = "celery_delayed_delivery";
const MICROS: i64 = 1_000_000;
/// The longest delay in one go, in seconds: eight and a half years. What is left then is waited for again.
const DELAY_MAX_S: i64 = (1 << LEVELS) - 1;

/// Whether the levels can hold messages of this queue: some names can't be bound by themselves.
pub(crate) fn can_hold(queue: &str) -> bool {
    binding_key(queue).is_some()
}

/// Whether messages enter the levels here.
pub(crate) fn is_entrance(exchange: &ShortString) -> bool {
    exchange.as_str() == level_name(LEVELS - 1)
}

/// What keeps a message until its time. Through another exchange than the default one it goes at once and is held back by
/// whoever takes it from its queue: the exchange need not know its routing key with the digits before it.
pub(crate) async fn parcel(
    inner: &Inner,
    link: &Link,
    mut parcel: Parcel,
    time: Timestamp,
) -> Result<Parcel, Error> {
    let now = Timestamp::from_system(SystemTime::now());
    let wait_us = time.as_micros().saturating_sub(now.as_micros());
    if wait_us <= 0 {
        return Ok(parcel);
    }
    parcel.properties = Copy::of(&parcel.properties).not_before(time).build();
    let seconds = (wait_us / MICROS).min(DELAY_MAX_S);
    if seconds == 0 || !parcel.exchange.as_str().is_empty() {
        return Ok(parcel);
    }
    let Ok(queue) = QueueName::new(parcel.routing_key.as_str()) else { return Ok(parcel) };
    // Some names can't be bound by themselves; the consumer then waits with what it took.
    let Some(routing_key) = routing_key(seconds, queue.as_str()) else { return Ok(parcel) };
    inner.broker.bound_to_delayed(inner, link, &queue).await?;
    parcel.exchange = level_name(LEVELS - 1).as_str().into();
    parcel.routing_key = routing_key;
    Ok(parcel)
}

/// `0.0.….1.0.1.celery`; `None` where that is no routing key, or would be another queue's, too.
fn routing_key(seconds: i64, queue: &str) -> Option<ShortString> {
    let mut key = String::with_capacity(2 * LEVELS as usize + queue.len());
    for level in (0..LEVELS).rev() {
        key.push_str(if seconds >> level & 1 == 1 { "1." } else { "0." });
    }
    key.push_str(queue);
    is_plain(queue).then(|| ShortString::try_new(key).ok()).flatten()
}

/// The words `*` and `#` stand for others.
fn is_plain(queue: &str) -> bool {
    queue.split('.').all(|word| word != "*" && word != "#")
}

/// The levels, where they are not there yet.
pub(crate) async fn prepare(inner: &Inner, link: &Link) -> Result<(), Error> {
    levels::declare(link, inner.options.delayed_queue_type).await
}

/// Leads messages of this queue to it. Exactly 28 digits before the name: `#.a` would match what waits for `b.a`.
pub(crate) async fn bind(link: &Link, queue: &QueueName) -> Result<(), Error> {
    let Some(pattern) = binding_key(queue.as_str()) else { return Ok(()) };
    let channel = link.channel().await?;
    let (name, options) = (declare::short(queue.as_str())?, QueueBindOptions::default());
    channel
        .queue_bind(name, EXIT.into(), pattern, options, FieldTable::default())
        .await
        .map_err(|error| explain(link.url(), &format!("bind queue `{queue}` to `{EXIT}`"), error))
}

fn binding_key(queue: &str) -> Option<ShortString> {
    let pattern = format!("{}{queue}", "*.".repeat(LEVELS as usize));
    is_plain(queue).then(|| ShortString::try_new(pattern).ok()).flatten()
}

/// The queue for which a message in the levels waits.
pub(crate) fn queue_of(routing_key: &str) -> Option<&str> {
    let digits = 2 * LEVELS as usize;
    let is_delay =
        routing_key.as_bytes().chunks(2).take(LEVELS as usize).all(|pair| matches!(pair, b"0." | b"1."));
    routing_key.get(digits..).filter(|queue| is_delay && !queue.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_keys_are_celerys() {
        let key = routing_key(5, "celery").unwrap();
        let expected = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.celery";
        assert_eq!(key.as_str(), expected);
        assert_eq!(queue_of(expected), Some("celery"));
        assert_eq!(routing_key(DELAY_MAX_S, "q").unwrap().as_str(), format!("{}q", "1.".repeat(28)));
    }

    #[test]
    fn names_that_stand_for_others_are_not_bound() {
        for queue in ["#", "a.*", "a.#.b"] {
            assert_eq!((routing_key(5, queue), binding_key(queue)), (None, None), "{queue}");
        }
        assert_eq!(routing_key(5, &"q".repeat(200)), None, "longer than a routing key can be");
        assert!(routing_key(5, "a*.b#").is_some());
        assert_eq!(queue_of("celery"), None);
        assert_eq!(queue_of(&"1.".repeat(28)), None);
    }
}
