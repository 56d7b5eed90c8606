//! Dead letters: kept byte for byte with their reason, in the order of time.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use redis::Value;
use rwork_broker::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
use rwork_protocol::envelope;
use rwork_protocol::service::Error;
use rwork_protocol::{Message, QueueName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::handle::Inner;
use crate::keys::Places;
use crate::link::Script;
use crate::reply;

static RETRY: Script = Script::new(include_str!("scripts/retry.lua"));

/// Letters read or moved at once. Each may be large.
const PAGE_MAX: usize = 50;
const READ: &str = "read dead letters";

/// A letter as it is kept: JSON that can be read without rwork.
#[derive(Serialize, Deserialize)]
struct Letter {
    /// Its name beside it.
    #[serde(skip)]
    id: String,
    queue: String,
    delivery_count: u32,
    reason: Why,
    #[serde(flatten)]
    element: Element,
}

#[derive(Serialize, Deserialize)]
struct Why {
    kind: String,
    detail: String,
    worker: String,
    at_us: i64,
}

/// Element of the list, byte for byte.
#[derive(Serialize, Deserialize)]
enum Element {
    #[serde(rename = "envelope")]
    Text(String),
    /// Bytes that are no text.
    #[serde(rename = "envelope_base64")]
    Base64(String),
}

/// Writes a letter.
pub(crate) fn write(queue: &str, delivery_count: u32, reason: &Reason, element: &[u8]) -> Vec<u8> {
    let Reason { kind, detail, worker, at } = reason.clone();
    let letter = Letter {
        id: String::new(),
        queue: queue.to_owned(),
        delivery_count,
        reason: Why { kind, detail, worker, at_us: at.as_micros() },
        element: Element::of(element),
    };
    // Texts and numbers: nothing of it can fail.
    serde_json::to_vec(&letter).unwrap_or_default()
}

impl Element {
    fn of(element: &[u8]) -> Self {
        match std::str::from_utf8(element) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(element)),
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Text(text) => Bytes::from(text.clone()),
            Self::Base64(text) => STANDARD.decode(text).unwrap_or_default().into(),
        }
    }
}

impl Letter {
    /// `None`: somebody else wrote it.
    fn read(id: String, text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(|letter| Self { id, ..letter })
    }

    /// What is no envelope becomes the body of a message without headers.
    fn into_dead_letter(self) -> Option<DeadLetter> {
        let element = self.element.bytes();
        let message = match envelope::read(&element) {
            Ok(read) => read.message,
            Err(_) => Message { headers: Bytes::from_static(b"{}"), body: element, ..Message::default() },
        };
        let Why { kind, detail, worker, at_us } = self.reason;
        Some(DeadLetter {
            id: DeadLetterId(self.id),
            queue: QueueName::new(&self.queue).ok()?,
            delivery_count: self.delivery_count,
            message,
            reason: Reason { kind, detail, worker, at: Timestamp::from_micros(at_us) },
        })
    }
}

pub(crate) async fn list(inner: &Inner, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
    let mut found = Vec::new();
    let mut pages = Pages::new(query);
    while let Some(page) = pages.next(inner).await? {
        found.extend(page.into_iter().filter_map(Letter::into_dead_letter));
    }
    Ok(found)
}

/// Puts letters back into their lists as if they had never been delivered.
pub(crate) async fn retry(inner: &Inner, query: &DeadLetterQuery) -> Result<u64, Error> {
    let mut count = 0;
    let mut pages = Pages::new(query);
    while let Some(page) = pages.next(inner).await? {
        let list = |letter: &Letter| {
            let element = letter.element.bytes();
            let read = envelope::read(&element);
            let step = read.map_or(0, |read| inner.broker.keys.step(read.message.properties.priority));
            let envelope = envelope::renewed(&element).unwrap_or(element);
            Some((inner.broker.keys.list(&letter.queue, step), envelope))
        };
        count += take_away(inner, "retry dead letters", &page, list).await?;
    }
    Ok(count)
}

pub(crate) async fn purge(inner: &Inner, query: &DeadLetterQuery) -> Result<u64, Error> {
    let mut count = 0;
    let mut pages = Pages::new(query);
    while let Some(page) = pages.next(inner).await? {
        count += take_away(inner, "delete dead letters", &page, |_| None).await?;
    }
    Ok(count)
}

/// Takes letters away, and puts them where they are said to go; returns how many were still there.
async fn take_away(
    inner: &Inner,
    act: &str,
    letters: &[Letter],
    to: impl Fn(&Letter) -> Option<(String, Bytes)>,
) -> Result<u64, Error> {
    let own = &inner.broker.keys;
    let mut places = Places::beginning_with(&[&own.dead, &own.letters, &own.dead_counts]);
    let moves: Vec<(&Letter, usize, Bytes)> = letters
        .iter()
        .map(|letter| match to(letter) {
            Some((list, envelope)) => (letter, places.of(list), envelope),
            None => (letter, 0, Bytes::new()),
        })
        .collect();
    let mut call = RETRY.call(places.keys());
    for (letter, list, envelope) in &moves {
        call.arg(&letter.id).arg(&letter.queue).arg(*list).arg(&**envelope);
    }
    let answer = inner.commands.script(act, &call).await?;
    reply::count(&answer).ok_or_else(|| reply::odd(&inner.url, act, "a number"))
}

/// Letters that match, a page at a time, the oldest first.
struct Pages<'a> {
    query: &'a DeadLetterQuery,
    /// The ids that were asked for and are not looked at yet, in their order.
    ids: Option<Vec<&'a str>>,
    /// Only later ones.
    after: Option<String>,
    /// The last one that there was at the beginning: what is retried may be back before the end. Known after the first page.
    last: Option<String>,
    room: usize,
}

impl<'a> Pages<'a> {
    fn new(query: &'a DeadLetterQuery) -> Self {
        let after = query.after.as_ref().map(|after| after.0.clone());
        let asked: BTreeSet<&str> = query.ids.iter().map(|id| id.0.as_str()).collect();
        let ids = (!asked.is_empty()).then(|| {
            asked.into_iter().filter(|id| after.as_deref().is_none_or(|after| *id > after)).collect()
        });
        Self { query, ids, after, last: None, room: query.limit.unwrap_or(usize::MAX) }
    }

    /// `None` at the end; a page may be empty.
    async fn next(&mut self, inner: &Inner) -> Result<Option<Vec<Letter>>, Error> {
        if self.room == 0 {
            return Ok(None);
        }
        let ids = self.next_ids(inner).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&inner.broker.keys.letters).arg(&ids);
        let texts = reply::list(inner.commands.command(READ, &cmd).await?);
        let texts = texts.ok_or_else(|| reply::odd(&inner.url, READ, "a list"))?;
        let wanted = self.query.queue.as_ref().map(QueueName::as_str);
        let letters: Vec<Letter> = ids
            .into_iter()
            .zip(texts)
            .filter_map(|(id, text)| Letter::read(id, &reply::bytes(text)?))
            .filter(|letter| wanted.is_none_or(|wanted| letter.queue == wanted))
            .take(self.room)
            .collect();
        self.room -= letters.len();
        Ok(Some(letters))
    }

    async fn next_ids(&mut self, inner: &Inner) -> Result<Vec<String>, Error> {
        if let Some(ids) = &mut self.ids {
            return Ok(ids.drain(..ids.len().min(PAGE_MAX)).map(str::to_owned).collect());
        }
        let last = match self.last.take() {
            Some(last) => last,
            None => last_id(inner).await?,
        };
        let from = self.after.as_ref().map_or("-".to_owned(), |after| format!("({after}"));
        let mut cmd = redis::cmd("ZRANGEBYLEX");
        cmd.arg(&inner.broker.keys.dead).arg(from).arg(format!("[{last}")).arg("LIMIT").arg(0).arg(PAGE_MAX);
        let ids = match inner.commands.command(READ, &cmd).await? {
            Value::Nil => Vec::new(),
            found => reply::texts(found),
        };
        self.last = Some(last);
        if let Some(last) = ids.last() {
            self.after = Some(last.clone());
        }
        Ok(ids)
    }
}

/// The id of the youngest letter; empty: there is none, and nothing is below it.
async fn last_id(inner: &Inner) -> Result<String, Error> {
    let mut cmd = redis::cmd("ZREVRANGEBYLEX");
    cmd.arg(&inner.broker.keys.dead).arg("+").arg("-").arg("LIMIT").arg(0).arg(1);
    let found = inner.commands.command(READ, &cmd).await?;
    Ok(if found == Value::Nil { String::new() } else { reply::texts(found).pop().unwrap_or_default() })
}
