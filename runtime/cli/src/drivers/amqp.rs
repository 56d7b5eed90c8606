//! RabbitMQ: a URL of Celery's, settings by Celery's names, and `[amqp]`.

use std::time::Duration;

use rwork_amqp::{Amqp, Options, Role};
use rwork_protocol::QueueName;

use super::Place;
use crate::config::{AMQP, Config, Parameter, parse_bytes};
use crate::failure::Failure;
use crate::wiring;

/// The server's limit unless `[amqp]` says another one.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(1800);
/// The most that AMQP can say.
const HEARTBEAT_S_MAX: u64 = u16::MAX as u64;

/// Reaches the server.
pub(super) async fn open(config: &Config, place: &Place<'_>) -> anyhow::Result<Amqp> {
    let options = options(config, place)?;
    place.opened(config, Amqp::connect(options).await)
}

fn options(config: &Config, place: &Place<'_>) -> anyhow::Result<Options> {
    let settings = &config.settings;
    let mut options = place.opened(config, Options::parse(place.url, Role::Broker))?;
    options.connection_name = wiring::node_name(&settings.worker_hostname, &wiring::host_name());
    if let Some(time) = settings.broker_connection_timeout {
        options.connect_timeout = time.min(options.connect_timeout);
    }
    options.heartbeat_s = heartbeat(settings.broker_heartbeat);
    options.default_queue = settings.task_default_queue.clone();
    options.default_queue_type =
        queue_type(config, "task_default_queue_type", settings.task_default_queue_type)?;
    options.missing_queue_type =
        queue_type(config, "task_create_missing_queue_type", settings.task_create_missing_queue_type)?;
    options.delayed_queue_type = queue_type(
        config,
        "broker_native_delayed_delivery_queue_type",
        settings.broker_native_delayed_delivery_queue_type,
    )?;
    options.max_priority = settings.task_queue_max_priority;
    options.result_persistent = settings.result_persistent;
    if let Some(kept) = settings.result_expires {
        options.reply_expires = kept;
    }
    options.queues = known_queues(config)?;
    options.consumer_timeout = consumer_timeout(config).unwrap_or_default();
    for Parameter { name, value, .. } in config.parameters(AMQP) {
        if name == "message_bytes_max" {
            options.message_bytes_max = parse_bytes(value).unwrap_or(options.message_bytes_max);
        }
    }
    Ok(options)
}

fn queue_type<T: std::str::FromStr<Err = String>>(
    config: &Config,
    key: &str,
    word: &str,
) -> Result<T, Failure> {
    word.parse().map_err(|expected| {
        Failure::usage(format!("{}: expected `{key}` to be {expected}", config.origin(key)))
    })
}

/// Whole seconds, and at least one unless there is none.
fn heartbeat(time: Option<Duration>) -> u16 {
    let seconds = time.map_or(0, |time| time.as_secs().clamp(1, HEARTBEAT_S_MAX));
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

/// What AMQP can't list: the queues that somebody named.
fn known_queues(config: &Config) -> anyhow::Result<Vec<QueueName>> {
    let mut queues = wiring::queues(config)?;
    let default = wiring::default_queue(config)?;
    if !queues.contains(&default) {
        queues.push(default);
    }
    Ok(queues)
}

/// How long the server waits for an ack. `None`: for ever.
pub(super) fn consumer_timeout(config: &Config) -> Option<Duration> {
    let set = config.parameters(AMQP).find(|parameter| parameter.name == "consumer_timeout");
    let seconds = set.and_then(|Parameter { value, .. }| value.parse().ok());
    let time = seconds.map_or(Some(CONSUMER_TIMEOUT), |seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero())
}

/// What is to be said of a time limit that the server's patience does not cover.
pub(super) fn impatience(config: &Config) -> Option<String> {
    let patience = consumer_timeout(config)?;
    let default = ("task_time_limit".to_owned(), config.settings.task_time_limit);
    let of_tasks = config.deployment.tasks.iter().filter_map(|(task, options)| {
        let limit = options.time_limit?.0;
        Some((format!("[tasks.\"{task}\"] time_limit"), Some(limit)))
    });
    let too_long = std::iter::once(default)
        .chain(of_tasks)
        .filter(|(_, limit)| limit.is_none_or(|limit| limit > patience))
        .map(|(name, limit)| match limit {
            Some(limit) => format!("`{name}` ({} s)", limit.as_secs_f64()),
            None => format!("`{name}` (none)"),
        })
        .collect::<Vec<_>>();
    if too_long.is_empty() {
        return None;
    }
    Some(format!(
        "{} may be longer than RabbitMQ waits for an ack, {} s: longer tasks are handed over to a queue of this worker in \
         time. To spare that, raise `consumer_timeout` in the server's rabbitmq.conf (milliseconds), and set \
         `consumer_timeout` in [amqp] of rwork.toml (seconds) to the same",
        too_long.join(", "),
        patience.as_secs_f64(),
    ))
}
