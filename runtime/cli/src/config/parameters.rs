//! The tables whose keys a driver knows: `[embedded]`, `[redis]`, `[amqp]`, and Celery's `[broker_transport_options]` and
//! `[result_backend_transport_options]`, which the environment may fill too.

use std::path::Path;
use std::time::Duration;

use rwork_redis::Transport;

use super::document::{Entry, Item, Table, Value};
use super::raw::Raw;
use super::{Origin, unknown, wrong};
use crate::failure::Failure;

/// Parameters of the embedded broker, which may stand in its URL too.
pub(crate) const EMBEDDED: &str = "embedded";
/// What only rwork knows about Redis.
pub(crate) const REDIS: &str = "redis";
/// What only rwork knows about RabbitMQ.
pub(crate) const AMQP: &str = "amqp";
/// Celery's options of the broker.
pub(crate) const BROKER_TRANSPORT: &str = "broker_transport_options";
/// Celery's options of the result backend.
pub(crate) const BACKEND_TRANSPORT: &str = "result_backend_transport_options";

/// Every table of this kind.
pub(super) const TABLES: [&str; 5] = [EMBEDDED, REDIS, AMQP, BROKER_TRANSPORT, BACKEND_TRANSPORT];

/// The keys of `[redis]`.
const REDIS_KEYS: [&str; 3] = ["lease", "message_bytes_max", "record_bytes_max"];
/// The keys of `[amqp]`.
const AMQP_KEYS: [&str; 2] = ["consumer_timeout", "message_bytes_max"];
/// Options of kombu's AMQP transport that a configuration for Celery may have. rwork confirms all that it publishes, and
/// says so where it is told not to.
const CONFIRM_PUBLISH: &str = "confirm_publish";
/// The nested table that kombu has among its options.
const NESTED: &str = "sentinel_kwargs";
/// Bounds of `lease`, in seconds: below it a busy machine alone would lose leases; above it a dead worker's messages would
/// wait longer than rwork promises.
const LEASE_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=10.0;

/// RabbitMQ looks for late acks once a minute; less than a second would hand over every task.
const CONSUMER_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// Its table.
    pub(crate) table: &'static str,
    /// Its name there; `sentinel_kwargs.password` for one of a nested table.
    pub(crate) name: String,
    /// Its value as text, lists with commas.
    pub(crate) value: String,
    /// Where it comes from.
    pub(crate) origin: Origin,
}

impl Parameter {
    /// `broker_transport_options.visibility_timeout`.
    pub(crate) fn key(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// The value for people.
    pub(crate) fn shown(&self) -> &str {
        if self.name.contains("password") { "***" } else { &self.value }
    }
}

/// Reads one of the tables.
pub(super) fn read(path: &Path, table: &'static str, item: &Item) -> Result<Vec<Parameter>, Failure> {
    let mut parameters = Vec::new();
    for entry in entries(path, table, item)? {
        if entry.key == NESTED && is_transport(table) {
            for inner in entries(path, NESTED, &entry.item)? {
                parameters.push(parameter(path, table, format!("{NESTED}.{}", inner.key), inner)?);
            }
        } else {
            parameters.push(parameter(path, table, entry.key.clone(), entry)?);
        }
    }
    Ok(parameters)
}

fn entries<'a>(path: &Path, name: &str, item: &'a Item) -> Result<&'a Table, Failure> {
    match &item.value {
        Value::Table(entries) => Ok(entries),
        other => Err(wrong(&at(path, item.line), name, "a table", &Raw::Toml(other))),
    }
}

fn parameter(path: &Path, table: &'static str, name: String, entry: &Entry) -> Result<Parameter, Failure> {
    let origin = at(path, entry.line);
    let value = match &entry.item.value {
        scalar @ (Value::Text(_) | Value::Integer(_) | Value::Float(_)) => scalar.to_string(),
        flag @ Value::Flag(_) if is_transport(table) => flag.to_string(),
        Value::List(items) if is_transport(table) => {
            items.iter().map(|item| item.value.to_string()).collect::<Vec<_>>().join(",")
        }
        other => {
            let expected = if is_transport(table) {
                "a string, a number, true or false, or an array of numbers"
            } else {
                "a string or a number"
            };
            return Err(wrong(&origin, &name, expected, &Raw::Toml(other)));
        }
    };
    Ok(Parameter { table, name, value, origin })
}

fn is_transport(table: &str) -> bool {
    table == BROKER_TRANSPORT || table == BACKEND_TRANSPORT
}

fn at(path: &Path, line: usize) -> Origin {
    Origin::File(path.to_path_buf(), line)
}

/// One of the environment: `RWORK_BROKER_TRANSPORT_OPTIONS_VISIBILITY_TIMEOUT`, `RWORK_REDIS_LEASE`.
pub(super) fn variable(name: &str, value: &str) -> Option<Parameter> {
    let lower = name.strip_prefix("RWORK_")?.to_ascii_lowercase();
    let (table, key) = TABLES
        .into_iter()
        .filter(|table| *table != EMBEDDED)
        .find_map(|table| Some((table, lower.strip_prefix(table)?.strip_prefix('_')?)))?;
    // Others may use names that begin with `RWORK_REDIS_` or `RWORK_AMQP_`; what begins like Celery's options is meant for us.
    if (table == REDIS && !REDIS_KEYS.contains(&key)) || (table == AMQP && !AMQP_KEYS.contains(&key)) {
        return None;
    }
    let key = match key.strip_prefix(NESTED).and_then(|rest| rest.strip_prefix('_')) {
        Some(inner) => format!("{NESTED}.{inner}"),
        None => key.to_owned(),
    };
    Some(Parameter { table, name: key, value: value.to_owned(), origin: Origin::Env(name.to_owned()) })
}

/// Puts one on top: it takes the place of an earlier one.
pub(super) fn put(parameters: &mut Vec<Parameter>, new: Parameter) {
    parameters.retain(|old| (old.table, &old.name) != (new.table, &new.name));
    parameters.push(new);
}

/// Whether each is known and its value fits. What `[embedded]` may hold its driver says when it is opened.
pub(super) fn check(parameters: &[Parameter]) -> Result<(), Failure> {
    for parameter in parameters {
        match parameter.table {
            REDIS => check_redis(parameter)?,
            AMQP => check_amqp(parameter)?,
            BROKER_TRANSPORT if parameter.name == CONFIRM_PUBLISH => check_confirms(parameter)?,
            BROKER_TRANSPORT | BACKEND_TRANSPORT => {
                Transport::default()
                    .set(&parameter.name, &parameter.value)
                    .map_err(|expected| misfit(parameter, &expected))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_redis(parameter: &Parameter) -> Result<(), Failure> {
    let Parameter { name, value, origin, .. } = parameter;
    let raw = Raw::Word(value);
    match name.as_str() {
        "lease" => {
            let seconds = value.parse().ok().filter(|seconds| LEASE_SECONDS.contains(seconds));
            let expected =
                || format!("a number of seconds in {}..={}", LEASE_SECONDS.start(), LEASE_SECONDS.end());
            seconds.map(drop).ok_or_else(|| wrong(origin, name, &expected(), &raw))
        }
        "message_bytes_max" | "record_bytes_max" => {
            raw.bytes().map(drop).map_err(|expected| wrong(origin, name, &expected, &raw))
        }
        _ => Err(unknown(origin, "key of [redis]", name, REDIS_KEYS.into_iter())),
    }
}

fn check_amqp(parameter: &Parameter) -> Result<(), Failure> {
    let Parameter { name, value, origin, .. } = parameter;
    let raw = Raw::Word(value);
    match name.as_str() {
        "consumer_timeout" => raw.seconds().and_then(|time| match time {
            Some(time) if time < CONSUMER_TIMEOUT_MIN => Err("0 (none) or at least 1 s".to_owned()),
            _ => Ok(()),
        }),
        "message_bytes_max" => raw.bytes().map(drop),
        _ => return Err(unknown(origin, "key of [amqp]", name, AMQP_KEYS.into_iter())),
    }
    .map_err(|expected| wrong(origin, name, &expected, &raw))
}

fn check_confirms(parameter: &Parameter) -> Result<(), Failure> {
    let Parameter { name, value, origin, .. } = parameter;
    let raw = Raw::Word(value);
    match raw.flag() {
        Ok(true) => Ok(()),
        _ => Err(wrong(origin, name, "true: every message is confirmed, or it might be lost", &raw)),
    }
}

/// The driver's words, its "did you mean" as a hint like ours.
fn misfit(parameter: &Parameter, expected: &str) -> Failure {
    let line = |expected: &str| {
        Failure::usage(format!("{}: [{}]: expected {expected}", parameter.origin, parameter.table))
    };
    match expected.split_once(" (did you mean ") {
        Some((expected, near)) => line(expected).hint(format!("did you mean {}", near.trim_end_matches(')'))),
        None => line(expected),
    }
}
