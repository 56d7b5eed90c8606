//! How deliveries end: one script call for a batch.

use bytes::Bytes;
use redis::Value;
use rwork_protocol::Timestamp;
use rwork_protocol::service::Error;
use uuid::Uuid;

use crate::handle::Inner;
use crate::keys::Places;
use crate::link::Script;
use crate::reply;

static SETTLE: Script =
    Script::new(concat!(include_str!("scripts/bury.lua"), include_str!("scripts/settle.lua")));

/// What one call may carry besides acks, in bytes. More would hold the server up; it makes several calls then.
const BYTES_MAX: usize = 32 << 20;
const ACT: &str = "settle deliveries";

/// One delivery's end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) tag: Bytes,
    /// In the order of taking.
    pub(crate) number: u64,
    pub(crate) act: Act,
}

/// What becomes of the message.
#[derive(Debug)]
pub(crate) enum Act {
    /// It is gone.
    Ack,
    /// To the end of a list.
    Back { list: String, envelope: Bytes },
    /// To the head of a list.
    Head { list: String, envelope: Bytes },
    /// Parked.
    Park(Parking),
    /// A dead letter of this queue.
    Dead { queue: String, letter: Vec<u8> },
}

impl Act {
    fn size(&self) -> usize {
        match self {
            Self::Ack => 0,
            Self::Back { envelope, .. } | Self::Head { envelope, .. } => envelope.len(),
            Self::Park(parking) => parking.value.len(),
            Self::Dead { letter, .. } => letter.len(),
        }
    }
}

/// A message that is held back.
#[derive(Debug)]
pub(crate) struct Parking {
    pub(crate) delayed: String,
    pub(crate) parked: String,
    /// Its own, not the tag: that may be there twice. In the order of making, so that messages due together stay in order.
    pub(crate) id: String,
    /// In milliseconds, from now: the server's clock decides, not ours.
    pub(crate) wait_ms: String,
    /// `3:<envelope>`
    pub(crate) value: Vec<u8>,
}

impl Parking {
    /// Until `until`; `None` when that has passed.
    pub(crate) fn until(
        inner: &Inner,
        until: Timestamp,
        now: Timestamp,
        queue: &str,
        step: u8,
        envelope: &[u8],
    ) -> Option<Self> {
        let wait_us = until.as_micros().saturating_sub(now.as_micros());
        if wait_us <= 0 {
            return None;
        }
        let mut value = format!("{step}:").into_bytes();
        value.extend_from_slice(envelope);
        Some(Self {
            delayed: inner.broker.keys.delayed(queue),
            parked: inner.broker.keys.parked(queue),
            id: Uuid::now_v7().to_string(),
            wait_ms: format!("{}.{:03}", wait_us / 1000, wait_us % 1000),
            value,
        })
    }
}

/// Settles; whether each was still held, in the order of the batch. `None`: the lease was lost, and nothing was done.
pub(crate) async fn settle(
    inner: &Inner,
    consumer: &str,
    batch: &[Ended],
) -> Result<Option<Vec<bool>>, Error> {
    let mut done = vec![false; batch.len()];
    for part in parts(batch) {
        let Some(answers) = settle_part(inner, consumer, batch, &part).await? else { return Ok(None) };
        for (place, answer) in part.into_iter().zip(answers) {
            if let Some(done) = done.get_mut(place) {
                *done = answer;
            }
        }
    }
    Ok(Some(done))
}

/// Places of a batch, in the order of calls: one call, unless that would be too large.
fn parts(batch: &[Ended]) -> Vec<Vec<usize>> {
    let of = |wanted: fn(&Act) -> bool| {
        batch.iter().enumerate().filter(move |(_, ended)| wanted(&ended.act)).map(|(place, _)| place)
    };
    let acks = of(|act| matches!(act, Act::Ack));
    // Whatever the order in which they are given back, the first taken is the next to be taken.
    let mut heads: Vec<usize> = of(|act| matches!(act, Act::Head { .. })).collect();
    heads.sort_by_key(|place| batch.get(*place).map(|ended| ended.number));
    let others = of(|act| !matches!(act, Act::Ack | Act::Head { .. }));
    let size = |place: &usize| batch.get(*place).map_or(0, |ended| ended.act.size());
    if batch.iter().map(|ended| ended.act.size()).sum::<usize>() <= BYTES_MAX {
        return vec![acks.chain(others).chain(heads).collect()];
    }
    let mut parts = chunks(acks.chain(others), size);
    // What is put at the head last is served first.
    parts.extend(chunks(heads.into_iter(), size).into_iter().rev());
    parts
}

fn chunks(places: impl Iterator<Item = usize>, size: impl Fn(&usize) -> usize) -> Vec<Vec<usize>> {
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    let mut filled = 0;
    for place in places {
        filled += size(&place);
        match chunks.last_mut() {
            Some(chunk) if filled <= BYTES_MAX => chunk.push(place),
            _ => {
                filled = size(&place);
                chunks.push(vec![place]);
            }
        }
    }
    chunks
}

async fn settle_part(
    inner: &Inner,
    consumer: &str,
    batch: &[Ended],
    part: &[usize],
) -> Result<Option<Vec<bool>>, Error> {
    let own = &inner.broker.keys;
    let held = own.held(consumer);
    let fixed =
        [&own.consumers, &held, &own.unacked, &own.unacked_index, &own.dead, &own.letters, &own.dead_counts];
    let mut places = Places::beginning_with(&fixed.map(String::as_str));
    let ended = || part.iter().filter_map(|place| batch.get(*place));
    // Keys come before arguments.
    let named: Vec<[usize; 2]> = ended()
        .map(|ended| match &ended.act {
            Act::Back { list, .. } | Act::Head { list, .. } => [places.of(list.clone()), 0],
            Act::Park(parking) => [places.of(parking.delayed.clone()), places.of(parking.parked.clone())],
            Act::Ack | Act::Dead { .. } => [0, 0],
        })
        .collect();
    let mut call = SETTLE.call(places.keys());
    let acks = ended().filter(|ended| matches!(ended.act, Act::Ack));
    call.arg(consumer).arg(acks.clone().count());
    for ended in acks {
        call.arg(&*ended.tag);
    }
    for (ended, [first, second]) in ended().zip(named) {
        let tag = &*ended.tag;
        match &ended.act {
            Act::Ack => {}
            Act::Back { envelope, .. } => drop(call.arg("back").arg(tag).arg(first).arg(&**envelope)),
            Act::Head { envelope, .. } => drop(call.arg("head").arg(tag).arg(first).arg(&**envelope)),
            Act::Park(parking) => {
                call.arg("park").arg(tag).arg(first).arg(second);
                call.arg(&parking.id).arg(&parking.wait_ms).arg(&parking.value);
            }
            Act::Dead { queue, letter } => {
                call.arg("dead").arg(tag).arg(queue).arg(random()).arg(letter);
            }
        }
    }
    let answer = inner.commands.script(ACT, &call).await?;
    if answer == Value::Nil {
        return Ok(None);
    }
    let answers = reply::list(answer).filter(|answers| answers.len() == part.len());
    let answers = answers.ok_or_else(|| reply::odd(&inner.url, ACT, "a number for each"))?;
    Ok(Some(answers.iter().map(|answer| reply::int(answer) == Some(1)).collect()))
}

/// Tells ids of one microsecond apart.
pub(crate) fn random() -> String {
    format!("{:08x}", fastrand::u32(..))
}
