//! One call of the commit script: items, their keys by place, and the answer.

use std::collections::HashMap;

use bytes::Bytes;
use redis::Value;
use rwork_broker::{Committed, Part, Refusal};
use rwork_protocol::QueueName;
use rwork_protocol::service::Error;
use rwork_protocol::stored::is_success;

use crate::delayed::Parking;
use crate::handle::Inner;
use crate::keys::Places;
use crate::link::{Call, Script};
use crate::publish::Post;
use crate::reply;
use crate::results::Results;

static COMMIT: Script = Script::new(concat!(
    include_str!("../scripts/session.lua"),
    include_str!("../backend/record.lua"),
    include_str!("../scripts/bury.lua"),
    include_str!("../scripts/commit.lua")
));
const ACT: &str = "commit";
/// How often a value that changes under our eyes is looked at again; somebody else writes it, and one more write comes.
const LOOKS_MAX: usize = 5;

/// On whose behalf a call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<'a> {
    pub(crate) consumer: &'a str,
    pub(crate) token: &'a str,
    /// 0: not numbered; the ends of its deliveries tell whether it was done.
    pub(crate) number: u64,
}

/// What becomes of a delivery.
#[derive(Debug)]
pub(crate) enum End {
    Ack,
    /// Stays held.
    Hold,
    /// There is none.
    Free,
    /// Its start is written down.
    Start(u32),
    /// To the end of a list.
    Back {
        list: String,
        envelope: Bytes,
    },
    /// To the head of a list.
    Head {
        list: String,
        envelope: Bytes,
    },
    Park(Parking),
    Dead {
        queue: String,
        letter: Vec<u8>,
    },
    /// Refused before it was sent: answered with the others, so that a repeated batch has the same answers.
    Refused(Refusal),
}

/// A record to be written.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) expiry_ms: Option<u64>,
    /// Whether it is a ready state's, which somebody may wait for.
    pub(crate) is_ready: bool,
}

/// One commit as the script takes it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) end: End,
    pub(crate) tag: String,
    /// Starts may be written for it.
    pub(crate) has_starts: bool,
    pub(crate) records: Vec<Entry>,
    pub(crate) posts: Vec<Post>,
}

impl Item {
    pub(crate) fn new(end: End, tag: String) -> Self {
        Self { end, tag, has_starts: false, records: Vec::new(), posts: Vec::new() }
    }
}

/// Commits items; `None`: the consumer does not stand, and nothing was done.
pub(crate) async fn transact(
    inner: &Inner,
    results: Option<&Results>,
    by: By<'_>,
    items: &[Item],
    unbound: &[QueueName],
) -> Result<Option<Vec<Committed>>, Error> {
    let mut looked: HashMap<usize, Bytes> = HashMap::new();
    for _ in 0..LOOKS_MAX {
        let call = call(inner, results, by, items, unbound, &looked);
        let answer = inner.commands.script(ACT, &call).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        match Answer::read(answer, items.len()) {
            Some(Answer::Look(values)) => looked.extend(values),
            Some(Answer::Done(committed, told)) => {
                note_unheard(results, items, &told);
                return Ok(Some(committed));
            }
            None => break,
        }
    }
    Err(reply::odd(&inner.url, ACT, "an answer for each item"))
}

/// Has records looked at again that were published to nobody.
fn note_unheard(results: Option<&Results>, items: &[Item], told: &str) {
    let Some(results) = results else { return };
    let records = items.iter().flat_map(|item| &item.records).zip(told.chars());
    let unheard = records.filter(|(record, told)| *told == '2' && record.is_ready);
    results.inner.late.note(unheard.map(|(record, _)| record.key.clone()));
    if told.contains('3') {
        results.inner.late.warn_of_refusal();
    }
}

fn call(
    inner: &Inner,
    results: Option<&Results>,
    by: By<'_>,
    items: &[Item],
    unbound: &[QueueName],
    looked: &HashMap<usize, Bytes>,
) -> Call<'static> {
    let own = &inner.broker.keys;
    let (hash, held) = (own.consumer(by.consumer), own.held(by.consumer));
    let has_letters = items.iter().any(|item| matches!(item.end, End::Dead { .. }));
    let letters = [&own.dead, &own.letters, &own.dead_counts];
    let [dead, letters, counts] = if has_letters { letters } else { [&own.unacked; 3] };
    let mut places = Places::beginning_with(&[
        &own.consumers,
        &hash,
        &held,
        &own.unacked,
        &own.unacked_index,
        dead,
        letters,
        counts,
        &own.incarnation,
    ]);
    let bindings: Vec<[usize; 2]> = unbound
        .iter()
        .map(|queue| {
            let name = queue.as_str();
            [places.of(own.bindings(name)), places.of(own.permanent_bindings(name))]
        })
        .collect();
    let named: Vec<usize> = items.iter().flat_map(keys_of).map(|key| places.of(key.clone())).collect();
    let mut call = COMMIT.call(places.keys());
    let (theirs, ours) = results.and_then(|results| results.databases).unzip();
    let db = |db: Option<u32>| db.map_or(String::new(), |db| db.to_string());
    call.arg(by.consumer).arg(by.token).arg(by.number).arg(db(theirs)).arg(db(ours));
    call.arg(looked.len());
    for (place, value) in looked {
        call.arg(*place).arg(u8::from(is_success(value))).arg(&value[..]);
    }
    call.arg(bindings.len());
    for ([first, second], queue) in bindings.into_iter().zip(unbound) {
        call.arg(first).arg(second).arg(own.own_binding(queue));
    }
    let mut named = named.into_iter();
    items.iter().for_each(|item| write(&mut call, item, &mut named));
    call
}

/// Keys that an item names, in the order of its arguments.
fn keys_of(item: &Item) -> Vec<&String> {
    let mut keys = match &item.end {
        End::Back { list, .. } | End::Head { list, .. } => vec![list],
        End::Park(parking) => vec![&parking.delayed, &parking.parked],
        _ => Vec::new(),
    };
    keys.extend(item.records.iter().map(|record| &record.key));
    for post in &item.posts {
        match post {
            Post::Now { list, .. } => keys.push(list),
            Post::Later(parking) => keys.extend([&parking.delayed, &parking.parked]),
        }
    }
    keys
}

fn write(call: &mut Call<'_>, item: &Item, named: &mut impl Iterator<Item = usize>) {
    let mut place = || named.next().unwrap_or_default();
    call.arg(kind(&item.end)).arg(&item.tag).arg(u8::from(item.has_starts));
    call.arg(item.records.len()).arg(item.posts.len());
    match &item.end {
        End::Ack | End::Hold | End::Free => {}
        End::Start(count) => drop(call.arg(*count)),
        End::Back { envelope, .. } | End::Head { envelope, .. } => drop(call.arg(place()).arg(&envelope[..])),
        End::Park(parking) => write_parking(call, parking, &mut place),
        End::Dead { queue, letter } => drop(call.arg(queue).arg(random()).arg(letter)),
        End::Refused(Refusal { part, why }) => drop(call.arg(letter_of(*part)).arg(why)),
    }
    for record in &item.records {
        call.arg(place()).arg(&record.value[..]);
        call.arg(record.expiry_ms.map_or(String::new(), |expiry| expiry.to_string()));
    }
    for post in &item.posts {
        match post {
            Post::Now { envelope, .. } => drop(call.arg("now").arg(place()).arg(&envelope[..])),
            Post::Later(parking) => {
                call.arg("later");
                write_parking(call, parking, &mut place);
            }
        }
    }
}

fn write_parking(call: &mut Call<'_>, parking: &Parking, place: &mut impl FnMut() -> usize) {
    call.arg(place()).arg(place()).arg(&parking.id).arg(&parking.wait_ms).arg(&parking.value);
}

fn kind(end: &End) -> &'static str {
    match end {
        End::Ack => "ack",
        End::Hold => "hold",
        End::Free => "free",
        End::Start(_) => "start",
        End::Back { .. } => "back",
        End::Head { .. } => "head",
        End::Park(_) => "park",
        End::Dead { .. } => "dead",
        End::Refused(_) => "refused",
    }
}

fn letter_of(part: Part) -> &'static str {
    match part {
        Part::Record => "r",
        Part::FollowUp => "f",
        Part::Settlement => "s",
    }
}

/// Tells ids of one microsecond apart.
pub(crate) fn random() -> String {
    format!("{:08x}", fastrand::u32(..))
}

#[derive(Debug)]
enum Answer {
    /// Values by place that must be looked at first.
    Look(Vec<(usize, Bytes)>),
    /// The answers, and for each record a digit that says who was told.
    Done(Vec<Committed>, String),
}

impl Answer {
    fn read(answer: Value, count: usize) -> Option<Self> {
        let mut parts = reply::list(answer)?.into_iter();
        let first = reply::text(parts.next()?)?;
        if first == "?" {
            let mut values = Vec::new();
            while let (Some(place), Some(value)) = (parts.next(), parts.next()) {
                values.push((usize::try_from(reply::int(&place)?).ok()?, reply::bytes(value)?));
            }
            return Some(Self::Look(values));
        }
        let committed = read_answers(&first)?;
        let told = reply::text(parts.next()?)?;
        (committed.len() == count).then_some(Self::Done(committed, told))
    }
}

/// `DDRL`, and a line for each refusal: `fexpected …`.
fn read_answers(text: &str) -> Option<Vec<Committed>> {
    let mut lines = text.split('\n');
    let words = lines.next()?;
    let mut refusal = || {
        let line = lines.next()?;
        let part = match line.get(..1)? {
            "r" => Part::Record,
            "f" => Part::FollowUp,
            _ => Part::Settlement,
        };
        Some(Refusal { part, why: line.get(1..)?.to_owned() })
    };
    let read = |word| match word {
        'D' => Some(Committed::Done),
        'L' => Some(Committed::Lost),
        _ => refusal().map(Committed::Refused),
    };
    words.chars().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_their_order() {
        let refused = |part, why: &str| Committed::Refused(Refusal { part, why: why.to_owned() });
        assert_eq!(
            read_answers("DRLR\nfa list\ns"),
            Some(vec![
                Committed::Done,
                refused(Part::FollowUp, "a list"),
                Committed::Lost,
                refused(Part::Settlement, "")
            ])
        );
        assert_eq!(read_answers(""), Some(vec![]));
        assert_eq!(read_answers("R"), None);
    }
}
