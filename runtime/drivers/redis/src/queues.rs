//! Which queues there are, how full they are, and emptying them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::Value;
use rwork_broker::QueueInfo;
use rwork_protocol::QueueName;
use rwork_protocol::json::Value as Json;
use rwork_protocol::service::Error;

use crate::handle::Inner;
use crate::link::Script;
use crate::reply;

static TALLY: Script = Script::new(include_str!("scripts/tally.lua"));
static PURGE: Script = Script::new(include_str!("scripts/purge.lua"));

/// Keys or fields looked at by one step of a scan.
const SCAN_COUNT: usize = 1000;
/// Entries of `unacked` counted by one step: the server copies their whole envelopes to look at them.
const TALLY_COUNT: usize = 10;
const LIST: &str = "list queues";

/// Exchanges of Celery's workers for talking among themselves: what is bound there holds no tasks.
fn is_for_control(exchange: &str) -> bool {
    exchange.ends_with("celery.pidbox") || exchange.starts_with("celeryev")
}

/// The queues that are bound, have something, or are consumed.
pub(crate) async fn list(inner: &Inner) -> Result<Vec<QueueInfo>, Error> {
    let unsettled = unsettled(inner).await?;
    let dead = dead(inner).await?;
    let mut names = names(inner).await?;
    names.extend(unsettled.keys().chain(dead.keys()).filter_map(|name| QueueName::new(name).ok()));
    let keys = &inner.broker.keys;
    let mut pipe = redis::pipe();
    for name in &names {
        pipe.cmd("ZCARD").arg(keys.delayed(name.as_str()));
        for list in keys.lists(name.as_str()) {
            pipe.cmd("LLEN").arg(list);
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let counts = inner.commands.pipeline(LIST, &pipe).await?;
    let counts = counts.chunks(1 + keys.steps.len());
    let info = |(name, counts): (QueueName, &[Value])| {
        let counted: Vec<u64> = counts.iter().filter_map(reply::count).collect();
        let (delayed, lists) = counted.split_first()?;
        Some(QueueInfo {
            ready: lists.iter().sum(),
            unsettled: unsettled.get(name.as_str()).copied().unwrap_or(0),
            delayed: *delayed,
            dead: dead.get(name.as_str()).copied().unwrap_or(0),
            name,
        })
    };
    Ok(names.into_iter().zip(counts).filter_map(info).collect())
}

/// Deletes what nobody holds, delayed messages too.
pub(crate) async fn purge(inner: &Inner, queue: &QueueName) -> Result<u64, Error> {
    const ACT: &str = "purge a queue";
    let keys = &inner.broker.keys;
    let name = queue.as_str();
    let all: Vec<String> =
        [keys.delayed(name), keys.parked(name)].into_iter().chain(keys.lists(name)).collect();
    let answer = inner.commands.script(ACT, &PURGE.call(&all)).await?;
    reply::count(&answer).ok_or_else(|| reply::odd(&inner.url, ACT, "a number"))
}

/// Names from the bindings and from what is delayed.
async fn names(inner: &Inner) -> Result<BTreeSet<QueueName>, Error> {
    let keys = &inner.broker.keys;
    let mut names = BTreeSet::new();
    for delayed in scan(inner, &keys.delayed_prefix()).await? {
        names.extend(QueueName::new(delayed));
    }
    let exchanges: Vec<String> = scan(inner, &keys.bindings_prefix())
        .await?
        .into_iter()
        .filter(|exchange| !is_for_control(exchange))
        .collect();
    for exchanges in exchanges.chunks(SCAN_COUNT) {
        let mut pipe = redis::pipe();
        for exchange in exchanges {
            pipe.cmd("SMEMBERS").arg(keys.bindings(exchange));
        }
        for members in inner.commands.pipeline(LIST, &pipe).await? {
            let members = reply::texts(members);
            let queues =
                members.iter().filter_map(|member| keys.split_binding(member)).map(|(_, _, queue)| queue);
            names.extend(queues.filter_map(|queue| QueueName::new(queue).ok()));
        }
    }
    Ok(names)
}

/// What follows a prefix in the names of keys.
async fn scan(inner: &Inner, prefix: &str) -> Result<BTreeSet<String>, Error> {
    let pattern: String = prefix.chars().flat_map(quoted).chain(['*']).collect();
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let page = inner.commands.command(LIST, &cmd).await?;
        let read = || {
            let mut parts = reply::list(page)?.into_iter();
            Some((reply::text(parts.next()?)?, reply::texts(parts.next()?)))
        };
        let (next, keys) = read().ok_or_else(|| reply::odd(&inner.url, LIST, "a page of keys"))?;
        found.extend(keys.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned));
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}

/// Characters that mean something in a pattern.
fn quoted(character: char) -> impl Iterator<Item = char> {
    let quote = matches!(character, '*' | '?' | '[' | ']' | '\\' | '^').then_some('\\');
    quote.into_iter().chain([character])
}

/// How many are held, by routing key. A hash that changes meanwhile may be counted a little off.
async fn unsettled(inner: &Inner) -> Result<BTreeMap<String, u64>, Error> {
    let mut counts = BTreeMap::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut call = TALLY.call(&[&inner.broker.keys.unacked]);
        call.arg(&cursor).arg(TALLY_COUNT);
        let answer = inner.commands.script(LIST, &call).await?;
        let read = || {
            let mut parts = reply::list(answer)?.into_iter();
            let next = reply::text(parts.next()?)?;
            while let (Some(key), Some(count)) = (parts.next(), parts.next()) {
                if let Ok(Json::String(key)) = Json::parse(&reply::bytes(key)?) {
                    *counts.entry(key).or_default() += reply::count(&count)?;
                }
            }
            Some(next)
        };
        let next = read().ok_or_else(|| reply::odd(&inner.url, LIST, "counts"))?;
        if next == "0" {
            return Ok(counts);
        }
        cursor = next;
    }
}

async fn dead(inner: &Inner) -> Result<HashMap<String, u64>, Error> {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(&inner.broker.keys.dead_counts);
    let counts = match inner.commands.command(LIST, &cmd).await? {
        Value::Map(counts) => counts,
        _ => return Err(reply::odd(&inner.url, LIST, "a map")),
    };
    Ok(counts
        .into_iter()
        .filter_map(|(name, count)| Some((reply::text(name)?, reply::count(&count)?)))
        .collect())
}
