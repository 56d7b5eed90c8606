//! Dead letters: kept byte for byte with their reason, in the order of time.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use redis::Value;
use rwork_broker::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
use rwork_protocol::json::{Value as Json, write_string};
use rwork_protocol::service::Error;
use rwork_protocol::{Message, QueueName, Timestamp};

use crate::handle::Inner;
use crate::keys::Places;
use crate::link::Script;
use crate::{envelope, reply};

static RETRY: Script = Script::new(include_str!("scripts/retry.lua"));

/// Letters read or moved at once. Each may be large.
const PAGE_MAX: usize = 50;
const READ: &str = "read dead letters";

/// A letter as it is kept.
struct Letter {
    id: String,
    queue: String,
    delivery_count: u32,
    reason: Reason,
    /// What was in the list.
    element: Bytes,
}

/// Writes a letter: JSON that can be read without rwork.
pub(crate) fn write(queue: &str, delivery_count: u32, reason: &Reason, element: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(element.len() + element.len() / 8 + 512);
    out.extend_from_slice(b"{\"queue\": ");
    write_string(&mut out, queue);
    out.extend_from_slice(
        format!(", \"delivery_count\": {delivery_count}, \"reason\": {{\"kind\": ").as_bytes(),
    );
    write_string(&mut out, &reason.kind);
    out.extend_from_slice(b", \"detail\": ");
    write_string(&mut out, &reason.detail);
    out.extend_from_slice(b", \"worker\": ");
    write_string(&mut out, &reason.worker);
    out.extend_from_slice(format!(", \"at_us\": {}}}, ", reason.at.as_micros()).as_bytes());
    match std::str::from_utf8(element) {
        Ok(text) => {
            out.extend_from_slice(b"\"envelope\": ");
            write_string(&mut out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"\"envelope_base64\": ");
            write_string(&mut out, &STANDARD.encode(element));
        }
    }
    out.push(b'}');
    out
}

impl Letter {
    /// `None`: somebody else wrote it.
    fn read(id: String, text: &[u8]) -> Option<Self> {
        let letter = Json::parse(text).ok()?;
        let (reason, word) =
            (letter.get("reason")?, |json: &Json, key| json.get(key)?.as_str().map(str::to_owned));
        let number = |json: &Json, key| match json.get(key)? {
            Json::Int(number) => Some(*number),
            _ => None,
        };
        let element = match word(&letter, "envelope") {
            Some(text) => Bytes::from(text),
            None => Bytes::from(STANDARD.decode(word(&letter, "envelope_base64")?).ok()?),
        };
        Some(Self {
            id,
            queue: word(&letter, "queue")?,
            delivery_count: u32::try_from(number(&letter, "delivery_count")?).ok()?,
            reason: Reason {
                kind: word(reason, "kind")?,
                detail: word(reason, "detail")?,
                worker: word(reason, "worker")?,
                at: Timestamp::from_micros(number(reason, "at_us")?),
            },
            element,
        })
    }

    /// What is no envelope becomes the body of a message without headers.
    fn into_dead_letter(self) -> Option<DeadLetter> {
        let message = match envelope::read(&self.element) {
            Ok(read) => read.message,
            Err(_) => {
                Message { headers: Bytes::from_static(b"{}"), body: self.element, ..Message::default() }
            }
        };
        Some(DeadLetter {
            id: DeadLetterId(self.id),
            queue: QueueName::new(&self.queue).ok()?,
            delivery_count: self.delivery_count,
            message,
            reason: self.reason,
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
        let renew = |letter: &Letter| match envelope::read(&letter.element) {
            Ok(read) => {
                let step = inner.broker.keys.step(read.message.properties.priority);
                (step, envelope::renewed(&letter.element).unwrap_or_else(|_| letter.element.clone()))
            }
            Err(_) => (0, letter.element.clone()),
        };
        let list = |letter: &Letter| {
            let (step, envelope) = renew(letter);
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
