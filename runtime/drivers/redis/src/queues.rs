//! Which queues there are, how full they are, and emptying them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use rwork_broker::QueueInfo;
use rwork_protocol::QueueName;
use rwork_protocol::json::Value as Json;
use rwork_protocol::service::Error;
use tokio::time::Instant;

use crate::handle::Inner;
use crate::link::Script;
use crate::reply;
use crate::scan::{literal, scan};

static TALLY: Script = Script::new(include_str!("scripts/tally.lua"));
static PURGE: Script = Script::new(include_str!("scripts/purge.lua"));

/// Queues or exchanges asked about by one pipeline.
const PIPELINE_MAX: usize = 1000;
/// Entries of `unacked` that are all looked at.
const TALLY_MAX: u64 = 5000;
/// Of more, so many are drawn by lot: a queue's number is within 2 % of all then.
const SAMPLE: u64 = 2000;
/// Entries of one call. The server copies their whole envelopes to look at them, and stops early at large ones.
const TALLY_CALL_MAX: usize = 500;
/// Looking at large ones ends after this time, with an estimate from those that were seen.
const TALLY_TIME_MAX: Duration = Duration::from_millis(50);
/// How keys of bindings and of ours begin: `_kombu` and `rwork.`, letter by letter, so that one pass finds both.
const BEGINNINGS: &str = "[_r][kw][o][mr][bk][u.]*";
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
    let names: Vec<QueueName> = names.into_iter().collect();
    let mut infos = Vec::with_capacity(names.len());
    for names in names.chunks(PIPELINE_MAX) {
        for (name, waiting) in names.iter().zip(waiting(inner, names).await?) {
            let of = |count: Option<&u64>| count.copied().unwrap_or(0);
            infos.push(QueueInfo {
                name: name.clone(),
                ready: waiting.ready,
                unsettled: of(unsettled.get(name.as_str())),
                delayed: waiting.delayed,
                dead: of(dead.get(name.as_str())),
            });
        }
    }
    Ok(infos)
}

/// Messages of a queue that nobody holds.
struct Waiting {
    ready: u64,
    delayed: u64,
}

async fn waiting(inner: &Inner, names: &[QueueName]) -> Result<Vec<Waiting>, Error> {
    let keys = &inner.broker.keys;
    let mut pipe = redis::pipe();
    for name in names {
        pipe.cmd("ZCARD").arg(keys.delayed(name.as_str()));
        for list in ready_lists(inner, name) {
            pipe.cmd("LLEN").arg(list);
        }
    }
    let counts = inner.commands.pipeline(LIST, &pipe).await?;
    let read = |counts: &[Value]| {
        let (delayed, lists) = counts.split_first()?;
        Some(Waiting { delayed: reply::count(delayed)?, ready: lists.iter().filter_map(reply::count).sum() })
    };
    let read: Option<Vec<Waiting>> = counts.chunks(2 + keys.steps.len()).map(read).collect();
    read.ok_or_else(|| reply::odd(&inner.url, LIST, "counts"))
}

/// Lists that a queue's messages wait in, ready: one for each step, and what a worker of the first edition was taking when it
/// died.
fn ready_lists(inner: &Inner, name: &QueueName) -> impl Iterator<Item = String> {
    let keys = &inner.broker.keys;
    keys.lists(name.as_str()).chain([keys.taking(name.as_str())])
}

/// Deletes what nobody holds, delayed messages too.
pub(crate) async fn purge(inner: &Inner, queue: &QueueName) -> Result<u64, Error> {
    const ACT: &str = "purge a queue";
    let keys = &inner.broker.keys;
    let name = queue.as_str();
    let all: Vec<String> =
        [keys.delayed(name), keys.parked(name)].into_iter().chain(ready_lists(inner, queue)).collect();
    let answer = inner.commands.script(ACT, &PURGE.call(&all)).await?;
    reply::count(&answer).ok_or_else(|| reply::odd(&inner.url, ACT, "a number"))
}

/// Names from the bindings, from what is delayed, and from what was left behind.
async fn names(inner: &Inner) -> Result<BTreeSet<QueueName>, Error> {
    let keys = &inner.broker.keys;
    let prefixes = [keys.bindings_prefix(), keys.delayed_prefix(), keys.taking("")];
    let [exchanges, delayed, taking] = scan_for(inner, &prefixes).await?;
    let mut names: BTreeSet<QueueName> =
        delayed.iter().chain(&taking).filter_map(|name| QueueName::new(name).ok()).collect();
    let exchanges: Vec<String> = exchanges.into_iter().filter(|exchange| !is_for_control(exchange)).collect();
    for exchanges in exchanges.chunks(PIPELINE_MAX) {
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

/// What follows each prefix in the names of keys. One pass for all: results may be many times as many as anything else.
async fn scan_for<const N: usize>(
    inner: &Inner,
    prefixes: &[String; N],
) -> Result<[BTreeSet<String>; N], Error> {
    let mut found = [const { BTreeSet::new() }; N];
    let take_in = |page: Vec<String>| {
        for (prefix, found) in prefixes.iter().zip(&mut found) {
            found.extend(page.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned));
        }
        true
    };
    let pattern = format!("{}{BEGINNINGS}", literal(&inner.options.transport.global_keyprefix));
    scan(&*inner.commands.wire().await?, LIST, &pattern, take_in).await?;
    Ok(found)
}

/// Messages that are held, by routing key. Counted up to [`TALLY_MAX`]; of more, the number of all is divided as it is among
/// those that were looked at.
async fn unsettled(inner: &Inner) -> Result<BTreeMap<String, u64>, Error> {
    let unacked = &inner.broker.keys.unacked;
    let mut length = redis::cmd("HLEN");
    length.arg(unacked);
    let all = reply::count(&inner.commands.command(LIST, &length).await?).unwrap_or(0);
    let mut draw = redis::cmd("HRANDFIELD");
    // All of them where there are no more.
    draw.arg(unacked).arg(if all > TALLY_MAX { SAMPLE } else { TALLY_MAX });
    let tags = reply::list(inner.commands.command(LIST, &draw).await?).unwrap_or_default();
    let tags: Vec<Bytes> = tags.into_iter().filter_map(reply::bytes).collect();
    let (mut counts, seen) = tally(inner, &tags).await?;
    if seen < all && seen > 0 {
        tracing::warn!(unacked = all, seen, "many messages are held: their numbers by queue are estimates");
        for count in counts.values_mut() {
            *count =
                u64::try_from(u128::from(*count) * u128::from(all) / u128::from(seen)).unwrap_or(u64::MAX);
        }
    }
    Ok(counts)
}

/// Counts of those that are still held, and how many were looked at.
async fn tally(inner: &Inner, tags: &[Bytes]) -> Result<(BTreeMap<String, u64>, u64), Error> {
    let begun = Instant::now();
    let (mut counts, mut seen) = (BTreeMap::new(), 0);
    let mut rest = tags;
    while !rest.is_empty() && begun.elapsed() < TALLY_TIME_MAX {
        let mut call = TALLY.call(&[&inner.broker.keys.unacked]);
        for tag in rest.iter().take(TALLY_CALL_MAX) {
            call.arg(&tag[..]);
        }
        let answer = inner.commands.script(LIST, &call).await?;
        let read = || {
            let mut parts = reply::list(answer)?.into_iter();
            let looked_at = reply::count(&parts.next()?)?;
            while let (Some(key), Some(count)) = (parts.next(), parts.next()) {
                if let Ok(Json::String(key)) = Json::parse(&reply::bytes(key)?) {
                    *counts.entry(key).or_default() += reply::count(&count)?;
                }
            }
            Some(looked_at.max(1))
        };
        let looked_at = read().ok_or_else(|| reply::odd(&inner.url, LIST, "counts"))?;
        seen += looked_at;
        rest = rest.get(usize::try_from(looked_at).unwrap_or(usize::MAX)..).unwrap_or_default();
    }
    Ok((counts, seen))
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
