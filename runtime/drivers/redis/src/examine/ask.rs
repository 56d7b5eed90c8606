//! Asking, on a connection of its own.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Value};
use rwork_protocol::service::Error;
use tokio::time::Instant;

use super::info::{Facts, text};
use super::{Examination, KeyInUse};
use crate::handle::Inner;
use crate::link::Wire;
use crate::scan::{literal, scan};

const ACT: &str = "examine the server";
/// Enough for a median and a worst case to mean something, few enough to take a moment even around the world.
const ROUND_TRIPS: usize = 20;
/// A scan looks at no more than a hundred thousand keys: it is about names, not about counting.
const SCAN_ROUNDS_MAX: usize = 20;
/// kombu's other keys have names that options decide.
const PATTERNS: [&str; 2] = ["_kombu.binding*", "rwork.*"];

pub(super) async fn examine(inner: &Inner) -> Result<Examination, Error> {
    let wire = inner.commands.dedicated(|_| Ok::<_, redis::aio::SendError>(())).await?;
    let mut facts = Facts::default();
    if let Some(answer) = told(&wire, redis::cmd("INFO")).await? {
        facts.add_info(&answer);
    }
    for name in ["appendfsync", "save", "maxclients", "min-replicas-to-write"] {
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg(name);
        if let Some(answer) = told(&wire, config).await? {
            facts.add_config(&answer);
        }
    }
    let clock_ahead_s = clock_ahead(&wire).await?;
    let round_trips = round_trips(&wire).await?;
    let tracking = unless_refused(&wire, wire.track(ACT).await)?.is_some();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(inner.result_keys.probe()).arg("");
    let publishes = told(&wire, publish).await?.is_some();
    let keys = keys_in_use(inner, &wire).await?;
    let greeting = &wire.greeting;
    Ok(Examination {
        server: wire.url.to_string(),
        version: greeting.version.clone(),
        mode: greeting.mode.clone(),
        role: greeting.role.clone(),
        said: facts,
        round_trips,
        clock_ahead_s,
        tracking,
        publishes,
        keys,
    })
}

/// The answer; `None` when the server refuses to give one.
async fn told(wire: &Wire, cmd: Cmd) -> Result<Option<Value>, Error> {
    unless_refused(wire, wire.command(ACT, &cmd).await)
}

fn unless_refused<T>(wire: &Wire, answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Refused { .. } | Error::Act { .. }) if !wire.is_broken() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn round_trips(wire: &Wire) -> Result<Vec<Duration>, Error> {
    let ping = redis::cmd("PING");
    let mut taken = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let sent = Instant::now();
        wire.command(ACT, &ping).await?;
        taken.push(sent.elapsed());
    }
    Ok(taken)
}

/// Its clock in the middle of a round trip, against ours.
async fn clock_ahead(wire: &Wire) -> Result<f64, Error> {
    let ours = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let before = ours();
    let answer = wire.command(ACT, &redis::cmd("TIME")).await?;
    let middle = f64::midpoint(before, ours());
    let number = |value: &Value| text(value)?.parse::<f64>().ok();
    let theirs = match answer.as_sequence() {
        Some([seconds, micros]) => number(seconds).zip(number(micros)).map(|(s, us)| s + us / 1e6),
        _ => None,
    };
    Ok(theirs.map_or(0.0, |theirs| theirs - middle))
}

async fn keys_in_use(inner: &Inner, wire: &Wire) -> Result<Vec<KeyInUse>, Error> {
    let transport = &inner.options.transport;
    let prefix = &transport.global_keyprefix;
    let named = [&transport.unacked_key, &transport.unacked_index_key, &transport.unacked_mutex_key];
    let mut names: BTreeSet<String> = named.into_iter().map(|name| format!("{prefix}{name}")).collect();
    for pattern in PATTERNS {
        let (mut rounds, pattern) = (0, format!("{}{pattern}", literal(prefix)));
        let looked = scan(wire, ACT, &pattern, |page| {
            rounds += 1;
            names.extend(page);
            rounds < SCAN_ROUNDS_MAX
        });
        unless_refused(wire, looked.await)?;
    }
    let mut keys = Vec::new();
    for name in names {
        let mut kind = redis::cmd("TYPE");
        kind.arg(&name);
        let kind = told(wire, kind).await?.as_ref().and_then(text).unwrap_or_default();
        let size = match kind.as_str() {
            "list" => "LLEN",
            "hash" => "HLEN",
            "zset" => "ZCARD",
            "set" => "SCARD",
            "string" => "EXISTS",
            _ => continue,
        };
        let mut size = redis::cmd(size);
        size.arg(&name);
        let entries = match told(wire, size).await? {
            Some(Value::Int(entries)) => u64::try_from(entries).unwrap_or_default(),
            _ => continue,
        };
        keys.push(KeyInUse { name, kind, entries });
    }
    Ok(keys)
}
