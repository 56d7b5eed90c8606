//! How full queues are, and emptying them.
//!
//! AMQP can't list queues: those are known that this process consumes, has published to or was told of, and those that
//! delayed messages and dead letters name. Of what is unsettled only our own is known.

use std::collections::BTreeMap;

use lapin::options::QueuePurgeOptions;
use lapin::types::ShortString;
use rwork_broker::QueueInfo;
use rwork_protocol::QueueName;
use rwork_protocol::service::Error;

use crate::broker::locked;
use crate::consumer::{Ends, Lane, Place, Shared, Stage};
use crate::declare::short;
use crate::error::{explain, reply, reply_code};
use crate::handle::Inner;
use crate::look::{Look, count, ready};
use crate::{dead, delayed};

/// Delayed messages looked at by one call, of each level.
const DELAYED_MAX: usize = 100_000;

/// What is known of a queue.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// It was there, or something is of it.
    is_there: bool,
    ready: u64,
    unsettled: u64,
    delayed: u64,
    dead: u64,
}

pub(crate) async fn list(inner: &Inner) -> Result<Vec<QueueInfo>, Error> {
    let mut all: BTreeMap<QueueName, Counts> = BTreeMap::new();
    for (queue, dead) in dead::counts(inner).await? {
        let counts = all.entry(queue).or_default();
        (counts.is_there, counts.dead) = (true, dead);
    }
    for (queue, delayed) in delayed_counts(inner).await? {
        let counts = all.entry(queue).or_default();
        (counts.is_there, counts.delayed) = (true, delayed);
    }
    for queue in inner.broker.known(inner) {
        all.entry(queue).or_default();
    }
    for (queue, counts) in &mut all {
        if let Some(ready) = ready(inner, &short(queue.as_str())?).await? {
            (counts.is_there, counts.ready) = (true, ready);
            count_ours(inner, queue, counts).await?;
        }
    }
    let infos = all.into_iter().filter(|(_, counts)| counts.is_there);
    let info = |(name, Counts { ready, unsettled, delayed, dead, .. })| QueueInfo {
        name,
        ready,
        unsettled,
        delayed,
        dead,
    };
    Ok(infos.map(info).collect())
}

/// What the server has sent us ahead is as ready as what it has.
async fn count_ours(inner: &Inner, queue: &QueueName, counts: &mut Counts) -> Result<(), Error> {
    for consumer in inner.broker.consumers() {
        for (_, lane) in lanes_of(&consumer, queue) {
            if let Some(ready) = barrier(&consumer, lane).await? {
                counts.ready = ready;
            }
        }
    }
    for consumer in inner.broker.consumers() {
        for (place, lane) in lanes_of(&consumer, queue) {
            let table = locked(&consumer.table);
            counts.unsettled += table.count(place, Stage::Handed);
            counts.delayed += table.count(place, Stage::Hidden);
            counts.ready += table.count(place, Stage::Ready) + lane.locked().waiting() as u64;
        }
    }
    Ok(())
}

fn lanes_of<'a>(consumer: &'a Shared, queue: &'a QueueName) -> impl Iterator<Item = (usize, &'a Lane)> {
    consumer.lanes.iter().enumerate().filter(move |(_, lane)| lane.queue == *queue)
}

/// Everything that the server had sent us before has come; how many messages are left there. `None`: the channel is gone.
///
/// The queue answers the first question after it has sent what it had to send, the channel the second one after that.
async fn barrier(consumer: &Shared, lane: &Lane) -> Result<Option<u64>, Error> {
    let channel = lane.locked().channel.clone();
    if !channel.status().connected() {
        return Ok(None);
    }
    let name = short(lane.queue.as_str())?;
    let asked = async {
        let ready = count(&channel, &name).await?;
        count(&channel, &name).await?;
        Ok(ready)
    };
    match asked.await {
        Ok(ready) => {
            lane.locked().look();
            // Whoever waits for messages is no longer woken by those: they were taken in here.
            consumer.bell.notify_one();
            Ok(Some(ready))
        }
        // Deleted a moment ago.
        Err(error) if reply_code(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND) => Ok(None),
        Err(error) => Err(explain(consumer.inner.consuming.url(), &format!("count queue `{name}`"), error)),
    }
}

/// How many wait in delayed delivery, by queue.
async fn delayed_counts(inner: &Inner) -> Result<BTreeMap<QueueName, u64>, Error> {
    let mut counts = BTreeMap::new();
    let mut look = Look::begin(inner).await?;
    for level in levels(inner).await? {
        for found in look.all(&level_name(level), DELAYED_MAX).await? {
            let queue = delayed::queue_of(found.routing_key.as_str());
            if let Some(queue) = queue.and_then(|queue| QueueName::new(queue).ok()) {
                *counts.entry(queue).or_default() += 1;
            }
        }
    }
    look.end().await?;
    Ok(counts)
}

/// None where nothing was ever delayed.
async fn levels(inner: &Inner) -> Result<std::ops::Range<u32>, Error> {
    let is_there = ready(inner, &level_name(delayed::LEVELS - 1)).await?.is_some();
    Ok(0..if is_there { delayed::LEVELS } else { 0 })
}

fn level_name(level: u32) -> ShortString {
    delayed::level_name(level).into()
}

/// Deletes what nobody holds, delayed messages too.
pub(crate) async fn purge(inner: &Inner, queue: &QueueName) -> Result<u64, Error> {
    let purged = purge_queue(inner, queue).await?;
    let ours = if purged.is_some() { purge_ours(inner, queue).await? } else { 0 };
    Ok(purged.unwrap_or(0) + ours + purge_delayed(inner, queue).await?)
}

/// `None`: there is no such queue.
async fn purge_queue(inner: &Inner, queue: &QueueName) -> Result<Option<u64>, Error> {
    let channel = inner.consuming.channel().await?;
    match channel.queue_purge(short(queue.as_str())?, QueuePurgeOptions::default()).await {
        Ok(count) => Ok(Some(count.into())),
        Err(error) if reply_code(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND) => Ok(None),
        Err(error) => Err(explain(inner.consuming.url(), &format!("purge queue `{queue}`"), error)),
    }
}

/// What was sent us ahead, and what waits here for its time.
async fn purge_ours(inner: &Inner, queue: &QueueName) -> Result<u64, Error> {
    let mut count = 0;
    for consumer in inner.broker.consumers() {
        for (place, lane) in lanes_of(&consumer, queue) {
            barrier(&consumer, lane).await?;
            let mut ends = Ends::default();
            let untaken = locked(&consumer.table).take_untaken(place);
            for held in &untaken {
                if let Place::Lane(tag) = held.place {
                    ends.acks.push(tag);
                }
            }
            let mut state = lane.locked();
            while let Some(arrival) = state.take() {
                ends.acks.push(state.tag(arrival.tag));
            }
            count += ends.acks.len() as u64;
            state.end(&ends);
        }
    }
    Ok(count)
}

async fn purge_delayed(inner: &Inner, queue: &QueueName) -> Result<u64, Error> {
    let mut count = 0;
    let mut look = Look::begin(inner).await?;
    for level in levels(inner).await? {
        for found in look.all(&level_name(level), DELAYED_MAX).await? {
            if delayed::queue_of(found.routing_key.as_str()) == Some(queue.as_str()) {
                look.take_away(&found).await?;
                count += 1;
            }
        }
    }
    look.end().await?;
    Ok(count)
}
