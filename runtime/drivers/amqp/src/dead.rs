//! Dead letters: messages as they came, in the durable queue `rwork.dead`, with the reason in a header of rwork's own.
//!
//! AMQP has no list to look at: whoever looks gets every letter, keeps what it wants to take away, and gives the rest back
//! by closing the channel, in its old order.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_broker::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
use rwork_protocol::service::Error;
use rwork_protocol::{Message, QueueName, Timestamp};
use uuid::Uuid;

use crate::content;
use crate::declare::{Wanted, queue_type, short};
use crate::handle::Inner;
use crate::link::Link;
use crate::look::{Found, Look};
use crate::marks::{self, Copy, small, text};
use crate::options::QueueType;
use crate::publish::{self, Parcel};

/// Where they are.
pub(crate) const QUEUE: &str = "rwork.dead";
/// Letters looked at by one call: they are all in memory meanwhile.
const LETTERS_MAX: usize = 100_000;
/// A quorum queue of RabbitMQ 4 drops what was looked at twenty times; this is more often than anybody looks.
const LOOKS_MAX: i64 = 1 << 30;
const PERSISTENT: u8 = 2;

/// Makes the queue, where this handle has not done so.
pub(crate) async fn declare_once(inner: &Inner, link: &Link) -> Result<(), Error> {
    if inner.broker.has_dead_letters() {
        return Ok(());
    }
    declare(inner, link).await
}

/// Makes the queue.
pub(crate) async fn declare(inner: &Inner, link: &Link) -> Result<(), Error> {
    let kind = inner.options.default_queue_type;
    let mut arguments = queue_type(kind);
    if kind == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(LOOKS_MAX));
    }
    Wanted::durable(QUEUE.into(), arguments).declare(link).await?;
    inner.broker.found_dead_letters();
    Ok(())
}

/// A letter on its way there.
pub(crate) fn parcel(
    queue: &QueueName,
    properties: &BasicProperties,
    body: &Bytes,
    delivery_count: u32,
    reason: &Reason,
) -> Parcel {
    let mut why = FieldTable::default();
    let mut put = |name: &str, value| {
        why.insert(name.into(), value);
    };
    let text = |text: &str| AMQPValue::LongString(text.into());
    put("id", text(&Uuid::now_v7().to_string()));
    put("queue", text(queue.as_str()));
    put("kind", text(&reason.kind));
    put("detail", text(&reason.detail));
    put("worker", text(&reason.worker));
    put("at_us", AMQPValue::LongLongInt(reason.at.as_micros()));
    put("delivery_count", AMQPValue::LongLongInt(delivery_count.into()));
    if let Some(mode) = properties.delivery_mode() {
        put("delivery_mode", AMQPValue::ShortShortUInt(*mode));
    }
    // It outlives a restart of the server whatever it was before.
    let copy = Copy::whole(properties).dead(why).delivery_mode(PERSISTENT);
    Parcel::to_queue(QUEUE.into(), copy.build(), body.clone())
}

/// A letter that was found.
struct Letter {
    found: Found,
    id: String,
    queue: QueueName,
    delivery_count: u32,
    reason: Reason,
    /// As they were.
    properties: BasicProperties,
}

impl Letter {
    /// `None`: somebody else put it there.
    fn read(found: Found) -> Option<Self> {
        let (properties, marks) = marks::read(found.properties.clone());
        let why = marks.dead?;
        let word = |name: &str| why.inner().get(name).and_then(text);
        let properties = match why.inner().get("delivery_mode").and_then(small).map(u8::try_from) {
            Some(Ok(mode)) => properties.with_delivery_mode(mode),
            _ => marks::without_delivery_mode(&properties),
        };
        Some(Self {
            id: word("id")?,
            queue: QueueName::new(word("queue")?).ok()?,
            delivery_count: why.inner().get("delivery_count").and_then(small)?,
            reason: Reason {
                kind: word("kind")?,
                detail: word("detail")?,
                worker: word("worker")?,
                at: Timestamp::from_micros(why.inner().get("at_us").and_then(marks::long)?),
            },
            properties,
            found,
        })
    }

    fn into_dead_letter(self) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId(self.id),
            queue: self.queue,
            delivery_count: self.delivery_count,
            message: Message { body: self.found.body, ..content::read(&self.properties, Vec::new()) },
            reason: self.reason,
        }
    }
}

pub(crate) async fn list(inner: &Inner, query: &DeadLetterQuery) -> Result<Vec<DeadLetter>, Error> {
    let (look, letters) = find(inner, query).await?;
    let letters = letters.into_iter().map(Letter::into_dead_letter).collect();
    look.end().await?;
    Ok(letters)
}

/// Puts letters back into their queues as if they had never been delivered.
pub(crate) async fn retry(inner: &Inner, query: &DeadLetterQuery) -> Result<u64, Error> {
    let (look, letters) = find(inner, query).await?;
    let mut parcels = Vec::with_capacity(letters.len());
    for letter in &letters {
        inner.broker.declared(inner, &inner.publishing, &letter.queue).await?;
        parcels.push(publish::again(
            short(letter.queue.as_str())?,
            &letter.properties,
            &letter.found.body,
            0,
        ));
    }
    publish::send(inner, parcels).await?;
    take_away(look, &letters).await
}

pub(crate) async fn purge(inner: &Inner, query: &DeadLetterQuery) -> Result<u64, Error> {
    let (look, letters) = find(inner, query).await?;
    take_away(look, &letters).await
}

/// How many there are, by queue.
pub(crate) async fn counts(inner: &Inner) -> Result<std::collections::BTreeMap<QueueName, u64>, Error> {
    let (look, letters) = find(inner, &DeadLetterQuery::default()).await?;
    look.end().await?;
    let mut counts = std::collections::BTreeMap::new();
    for letter in letters {
        *counts.entry(letter.queue).or_default() += 1;
    }
    Ok(counts)
}

async fn take_away(mut look: Look<'_>, letters: &[Letter]) -> Result<u64, Error> {
    for letter in letters {
        look.take_away(&letter.found).await?;
    }
    look.end().await?;
    Ok(letters.len() as u64)
}

/// Those that match, oldest first.
async fn find<'a>(inner: &'a Inner, query: &DeadLetterQuery) -> Result<(Look<'a>, Vec<Letter>), Error> {
    let mut look = Look::begin(inner).await?;
    let name: ShortString = QUEUE.into();
    let found = look.all(&name, LETTERS_MAX).await?;
    let mut letters: Vec<Letter> = found.into_iter().filter_map(Letter::read).collect();
    letters.sort_by(|one, other| one.id.cmp(&other.id));
    letters.retain(|letter| matches(letter, query));
    letters.truncate(query.limit.unwrap_or(usize::MAX));
    Ok((look, letters))
}

fn matches(letter: &Letter, query: &DeadLetterQuery) -> bool {
    let is_asked = query.ids.is_empty() || query.ids.iter().any(|id| id.0 == letter.id);
    let is_after = query.after.as_ref().is_none_or(|after| letter.id > after.0);
    let is_of_queue = query.queue.as_ref().is_none_or(|queue| letter.queue == *queue);
    is_asked && is_after && is_of_queue
}
