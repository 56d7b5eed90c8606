//! Giving back what others held: rwork consumers that died, and kombu workers that did not settle within the visibility
//! timeout (`celery-wire.md` §2.6).
//!
//! Each in pages: a script reads, we mark each envelope, a script writes back what nobody touched meanwhile. Several
//! workers may do this at once, and any of them may die in between.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redis::Value;
use rwork_broker::Reason;
use rwork_net::Neighbour;
use rwork_protocol::Timestamp;
use rwork_protocol::service::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::bindings::Bindings;
use crate::broker::locked;
use crate::commit::random;
use crate::handle::Inner;
use crate::keys::Places;
use crate::link::Script;
use crate::{dead_letters, reply};
use rwork_protocol::envelope::{self, HeldEntry, Malformed};

static REAP: Script = Script::new(include_str!("scripts/reap.lua"));
static OVERDUE: Script = Script::new(include_str!("scripts/overdue.lua"));
static RESTORE: Script =
    Script::new(concat!(include_str!("scripts/bury.lua"), include_str!("scripts/restore.lua")));
static UNLOCK: Script = Script::new(include_str!("scripts/unlock.lua"));

/// Messages of one page: a few milliseconds of the server's time. What a worker holds is usually less, and then comes back
/// in its order.
const PAGE_MAX: usize = 1000;
/// Bytes of one page, down and up again: less than a second on a slow line.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How long the numbers and answers of a reaped consumer are kept: for whoever asks what became of its last batch.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// What a dead letter says whose queue can't be told.
const UNKNOWN_QUEUE: &str = "unknown";

/// One consumer's looking after others, beside whatever it does itself. Ends with it.
#[derive(Debug)]
pub(crate) struct Reaper {
    told: Arc<Told>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    /// Counters of the dead, by consumer. Held for a few moves.
    dead: Mutex<BTreeMap<String, String>>,
    bell: Notify,
}

impl Reaper {
    /// `node`: for what becomes a dead letter.
    pub(crate) fn new(inner: Arc<Inner>, node: String) -> Self {
        let told = Arc::new(Told::default());
        let task = AbortOnDropHandle::new(tokio::spawn(work(inner, node, Arc::clone(&told))));
        Self { told, _task: task }
    }

    /// Has the dead reaped, and gone on with those that were reaped before.
    pub(crate) fn tell(&self, dead: Vec<Neighbour>) {
        if !dead.is_empty() {
            locked(&self.told.dead).extend(dead.into_iter().map(|dead| (dead.consumer, dead.counter)));
            self.told.bell.notify_one();
        }
    }
}

/// A failure is no failure of the consumer: another renewal tells of the same dead.
async fn work(inner: Arc<Inner>, node: String, told: Arc<Told>) {
    let transport = &inner.options.transport;
    // As often as kombu's workers.
    let interval = transport.unacked_restore_interval.saturating_mul(transport.unacked_restore_throttle);
    let mut restore_at = Instant::now();
    loop {
        tokio::select! {
            () = told.bell.notified() => {
                let dead = std::mem::take(&mut *locked(&told.dead));
                if let Err(error) = reap(&inner, &node, dead).await {
                    tracing::warn!(%error, "failed to recover what dead workers held: trying again soon");
                }
            }
            () = sleep_until(restore_at) => {
                restore_at = Instant::now() + interval;
                if let Err(error) = restore_overdue(&inner, &node).await {
                    tracing::warn!(%error, "failed to restore what was not settled in time: trying again later");
                }
            }
        }
    }
}

/// A message that somebody held.
struct Left {
    tag: Bytes,
    /// Since when, as the server writes it; empty: that is not known.
    score: Bytes,
    /// The dead consumer's key, if it was one of ours.
    held: Option<String>,
    /// Starts that were written down for it.
    starts: u32,
    /// Value of `unacked`.
    entry: Bytes,
}

/// Marks consumers as reaped whose counter is still the same, and gives back what reaped ones held until nothing is left.
async fn reap(inner: &Inner, node: &str, dead: BTreeMap<String, String>) -> Result<(), Error> {
    const ACT: &str = "recover what dead workers held";
    let own = &inner.broker.keys;
    let mut restored = 0;
    loop {
        let mut call = REAP.call(&[&own.consumers, &own.unacked, &own.unacked_index]);
        call.arg(own.held_prefix()).arg(own.consumer_prefix()).arg(PAGE_MAX).arg(PAGE_BYTES_MAX);
        call.arg(REMEMBERED.as_millis() as u64);
        for (consumer, counter) in &dead {
            call.arg(consumer).arg(counter);
        }
        let answer = inner.commands.script(ACT, &call).await?;
        let (left_over, page) =
            read_reaped(inner, answer).ok_or_else(|| reply::odd(&inner.url, ACT, "a list of messages"))?;
        let now_restored = restore(inner, node, page).await?;
        restored += now_restored;
        // A page of nothing but what others gave back already may be followed by more: a renewal tells of them.
        if left_over == 0 || now_restored == 0 {
            break;
        }
    }
    if restored > 0 {
        tracing::info!(messages = restored, "gave back what dead workers held");
    }
    Ok(())
}

fn read_reaped(inner: &Inner, answer: Value) -> Option<(u64, Vec<Left>)> {
    let mut parts = reply::list(answer)?.into_iter();
    let left_over = reply::count(&parts.next()?)?;
    let mut page = Vec::new();
    for group in parts {
        let mut group = reply::list(group)?.into_iter();
        let held = inner.broker.keys.held(&reply::text(group.next()?)?);
        while let (Some(tag), Some(score), Some(entry), Some(starts)) =
            (group.next(), group.next(), group.next(), group.next())
        {
            let starts = reply::int(&starts).and_then(|starts| u32::try_from(starts).ok()).unwrap_or(0);
            let (tag, score, entry) = (reply::bytes(tag)?, reply::bytes(score)?, reply::bytes(entry)?);
            page.push(Left { tag, score, held: Some(held.clone()), starts, entry });
        }
    }
    Some((left_over, page))
}

/// Restores what was taken longer ago than the visibility timeout, as each of kombu's workers does for all; one at a time.
async fn restore_overdue(inner: &Inner, node: &str) -> Result<(), Error> {
    let (own, transport) = (&inner.broker.keys, &inner.options.transport);
    let token = Uuid::new_v4().to_string();
    let mut lock = redis::cmd("SET");
    lock.arg(&own.unacked_mutex)
        .arg(&token)
        .arg("NX")
        .arg("PX")
        .arg(transport.unacked_mutex_expire.as_millis() as u64);
    if inner.commands.command("take the right to restore", &lock).await? == Value::Nil {
        return Ok(());
    }
    let done = restore_pages(inner, node).await;
    let mut unlock = UNLOCK.call(&[&own.unacked_mutex]);
    unlock.arg(&token);
    inner.commands.script("give back the right to restore", &unlock).await?;
    let restored = done?;
    if restored > 0 {
        tracing::info!(messages = restored, "restored what was not settled within the visibility timeout");
    }
    Ok(())
}

async fn restore_pages(inner: &Inner, node: &str) -> Result<u64, Error> {
    const ACT: &str = "restore what was not settled in time";
    let (own, transport) = (&inner.broker.keys, &inner.options.transport);
    let mut room = transport.unacked_restore_limit.unwrap_or(usize::MAX);
    let mut restored = 0;
    while room > 0 {
        let mut call = OVERDUE.call(&[&own.unacked, &own.unacked_index]);
        call.arg(transport.visibility_timeout.as_secs_f64()).arg(room.min(PAGE_MAX)).arg(PAGE_BYTES_MAX);
        let answer = inner.commands.script(ACT, &call).await?;
        let page = read_overdue(answer).ok_or_else(|| reply::odd(&inner.url, ACT, "a list of messages"))?;
        room = room.saturating_sub(page.len());
        let now_restored = restore(inner, node, page).await?;
        restored += now_restored;
        // Nothing left, or others are at the same.
        if now_restored == 0 {
            break;
        }
    }
    Ok(restored)
}

fn read_overdue(answer: Value) -> Option<Vec<Left>> {
    let mut parts = reply::list(answer)?.into_iter();
    let mut page = Vec::new();
    while let (Some(tag), Some(score), Some(entry)) = (parts.next(), parts.next(), parts.next()) {
        let (tag, score, entry) = (reply::bytes(tag)?, reply::bytes(score)?, reply::bytes(entry)?);
        page.push(Left { tag, score, held: None, starts: 0, entry });
    }
    Some(page)
}

/// What is to be done with a message.
enum Way {
    /// To the head of these lists.
    Head {
        lists: Vec<String>,
        envelope: Bytes,
    },
    Dead {
        queue: String,
        letter: Vec<u8>,
    },
}

/// Writes a page back; returns how many of it nobody had touched meanwhile.
async fn restore(inner: &Inner, node: &str, page: Vec<Left>) -> Result<u64, Error> {
    const ACT: &str = "give messages back";
    if page.is_empty() {
        return Ok(0);
    }
    let entries: Vec<_> = page.iter().map(|left| envelope::read_held(&left.entry)).collect();
    let exchanges: HashSet<&str> = entries.iter().flatten().map(|entry| entry.exchange.as_str()).collect();
    let bindings = Bindings::read(inner, exchanges.into_iter()).await?;
    let own = &inner.broker.keys;
    let fixed = [&own.consumers, &own.unacked, &own.unacked_index, &own.dead, &own.letters, &own.dead_counts];
    let mut places = Places::beginning_with(&fixed.map(String::as_str));
    let mut acts = Vec::with_capacity(page.len());
    for (left, entry) in page.iter().zip(entries) {
        let way = way_back(inner, node, &bindings, left, entry);
        let held = left.held.as_ref().map_or(0, |held| places.of(held.clone()));
        let lists: Vec<usize> = match &way {
            Way::Head { lists, .. } => lists.iter().map(|list| places.of(list.clone())).collect(),
            Way::Dead { .. } => Vec::new(),
        };
        acts.push((left, held, lists, way));
    }
    let mut call = RESTORE.call(places.keys());
    for (left, held, lists, way) in &acts {
        let word = if matches!(way, Way::Head { .. }) { "head" } else { "dead" };
        call.arg(word).arg(&*left.tag).arg(&*left.score).arg(*held);
        match way {
            Way::Head { envelope, .. } => {
                call.arg(lists.len());
                for list in lists {
                    call.arg(*list);
                }
                call.arg(&**envelope);
            }
            Way::Dead { queue, letter } => drop(call.arg(queue).arg(random()).arg(letter)),
        }
    }
    let answer = inner.commands.script(ACT, &call).await?;
    reply::count(&answer).ok_or_else(|| reply::odd(&inner.url, ACT, "a number"))
}

/// Where a message goes back to. It may have begun, so that it is marked; only starts that were written down count. What
/// can't go back must not come by again and again.
fn way_back(
    inner: &Inner,
    node: &str,
    bindings: &Bindings,
    left: &Left,
    entry: Result<HeldEntry, Malformed>,
) -> Way {
    let entry = match entry {
        Ok(entry) => entry,
        Err(why) => {
            let (element, queue) = envelope::unwrap_held(&left.entry);
            let queue = queue.unwrap_or_else(|| UNKNOWN_QUEUE.to_owned());
            return bury(node, &queue, "undecodable", why.to_string(), 1, &element);
        }
    };
    let queues = bindings.route(inner, &entry.exchange, &entry.routing_key);
    let queue =
        queues.first().cloned().filter(|queue| !queue.is_empty()).unwrap_or_else(|| UNKNOWN_QUEUE.to_owned());
    let marked = envelope::read(&entry.envelope).and_then(|read| {
        let count = read.delivery_count.max(left.starts.saturating_add(1));
        Ok((read, envelope::redelivered(&entry.envelope, count)?))
    });
    match marked {
        Err(why) => bury(node, &queue, "undecodable", why.to_string(), 1, &entry.envelope),
        Ok((read, _)) if queues.is_empty() => {
            let HeldEntry { exchange, routing_key, .. } = &entry;
            let detail =
                format!("expected a queue bound to exchange {exchange:?} by {routing_key:?}, found none");
            bury(node, &queue, "unroutable", detail, read.delivery_count, &entry.envelope)
        }
        Ok((read, envelope)) => {
            let step = inner.broker.keys.step(read.message.properties.priority);
            Way::Head {
                lists: queues.iter().map(|queue| inner.broker.keys.list(queue, step)).collect(),
                envelope,
            }
        }
    }
}

fn bury(node: &str, queue: &str, kind: &str, detail: String, delivery_count: u32, element: &[u8]) -> Way {
    tracing::warn!(queue, "a message that was left behind can't go back ({kind}): {detail}");
    let at = Timestamp::from_system(SystemTime::now());
    let reason = Reason { kind: kind.to_owned(), detail, worker: node.to_owned(), at };
    Way::Dead {
        queue: queue.to_owned(),
        letter: dead_letters::write(queue, delivery_count, &reason, element),
    }
}
