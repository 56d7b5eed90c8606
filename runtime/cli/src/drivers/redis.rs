//! Redis: a URL of Celery's, Celery's transport options, and `[redis]`.

use std::time::Duration;

use rwork_broker::Error;
use rwork_redis::{Options, Redis, Role};

use super::Place;
use crate::config::{BACKEND_TRANSPORT, BROKER_TRANSPORT, Config, Parameter, REDIS, parse_bytes};
use crate::failure::Failure;

/// Options that mean nothing to a result backend: a difference in them keeps nothing from sharing a connection.
const BROKERS_OWN: [&str; 13] = [
    "ack_emulation",
    "deadletter_queue",
    "fanout_patterns",
    "fanout_prefix",
    "polling_interval",
    "priority_steps",
    "queue_order_strategy",
    "sep",
    "unacked_index_key",
    "unacked_key",
    "unacked_mutex_expire",
    "unacked_mutex_key",
    "visibility_timeout",
];

/// Reaches the server.
pub(super) async fn open(config: &Config, place: &Place<'_>) -> anyhow::Result<Redis> {
    let options = options(config, place)?;
    place.opened(config, Redis::connect(options).await)
}

/// What is known of the server before it is reached.
pub(super) fn options(config: &Config, place: &Place<'_>) -> anyhow::Result<Options> {
    let mut options = place.opened(config, Options::parse(place.url, place.role))?;
    if place.role == Role::Broker {
        options.transport.socket_connect_timeout = config.settings.broker_connection_timeout;
    }
    // Each was checked when the configuration was read.
    for Parameter { name, value, origin, .. } in config.parameters(place.transport) {
        let set = options.transport.set(name, value);
        set.map_err(|expected| Failure::usage(format!("{origin}: expected {expected}")))?;
    }
    for parameter in config.parameters(REDIS) {
        apply(&mut options, parameter);
    }
    Ok(options)
}

/// What the driver can't know: where options stand.
pub(super) fn hint(error: &Error, table: &str) -> Option<String> {
    match error {
        Error::Url { expected, .. } if expected.contains("`master_name`") => {
            Some(format!("`master_name = \"mymaster\"` in [{table}] of rwork.toml"))
        }
        Error::Url { expected, .. } if expected.starts_with("one of the parameters") => {
            Some(format!("Celery's transport options stand in [{table}] of rwork.toml, not in the URL"))
        }
        _ => None,
    }
}

fn apply(options: &mut Options, Parameter { name, value, .. }: &Parameter) {
    match name.as_str() {
        "lease" => {
            let seconds = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            options.lease = seconds.unwrap_or(options.lease);
        }
        "message_bytes_max" => {
            options.message_bytes_max = parse_bytes(value).unwrap_or(options.message_bytes_max);
        }
        "record_bytes_max" => {
            options.record_bytes_max = parse_bytes(value).unwrap_or(options.record_bytes_max);
        }
        _ => {}
    }
}

/// Whether nothing is said of the broker or the backend alone that would matter to a backend.
pub(super) fn same_options(config: &Config) -> bool {
    let options = |table| {
        let mut options: Vec<_> = config
            .parameters(table)
            .filter(|parameter| !BROKERS_OWN.contains(&parameter.name.as_str()))
            .filter(|parameter| !parameter.name.starts_with("unacked_restore"))
            .map(|parameter| (&parameter.name, &parameter.value))
            .collect();
        options.sort();
        options
    };
    options(BROKER_TRANSPORT) == options(BACKEND_TRANSPORT)
}
