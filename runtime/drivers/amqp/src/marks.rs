//! rwork's own headers on messages: what the server does not keep by itself. No worker and no guest ever sees them.
//!
//! | header | value |
//! |---|---|
//! | `x-rwork-deliveries` | deliveries so far that ended without an outcome, long |
//! | `x-rwork-not-before` | held back until then, milliseconds since 1970, long |
//! | `x-rwork-expiration` | the property `expiration`, which would end the waiting early |
//! | `x-rwork-held` | number of the delivery of which this is a copy, long |
//! | `x-rwork-dead` | why it is a dead letter, table |

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_protocol::Timestamp;

const DELIVERIES: &str = "x-rwork-deliveries";
const NOT_BEFORE: &str = "x-rwork-not-before";
const EXPIRATION: &str = "x-rwork-expiration";
const HELD: &str = "x-rwork-held";
const DEAD: &str = "x-rwork-dead";
/// The server's own word for it.
const REJECTED: &str = "rejected";
/// A quorum queue's own count of deliveries that ended without an outcome. It belongs to the queue, not to the message.
const SERVER_COUNT: &str = "x-delivery-count";
/// Where a message has been. The server drops a message that comes to a queue a second time by itself, so that what we
/// publish must not carry an earlier life's list.
const HISTORY: &[&str] = &[
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// What the marks of a message say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Marks {
    /// Deliveries that ended without an outcome.
    pub(crate) past: u32,
    /// The same, counted by a quorum queue since the message came to it.
    pub(crate) server_count: Option<u32>,
    pub(crate) not_before: Option<Timestamp>,
    /// Of which delivery this is a copy.
    pub(crate) held: Option<u64>,
    pub(crate) dead: Option<FieldTable>,
}

impl Marks {
    /// Deliveries, with the one that is under way.
    pub(crate) fn delivery_count(&self) -> u32 {
        self.past.saturating_add(self.server_count.unwrap_or(0)).saturating_add(1)
    }
}

/// Parts a message's properties from the marks.
pub(crate) fn read(properties: BasicProperties) -> (BasicProperties, Marks) {
    let Some(headers) = properties.headers().as_ref().filter(|headers| is_marked(headers)) else {
        return (properties, Marks::default());
    };
    let mut marks = Marks::default();
    let mut expiration = None;
    let mut kept = BTreeMap::new();
    for (name, value) in headers {
        match name.as_str() {
            DELIVERIES => marks.past = small(value).unwrap_or(0),
            SERVER_COUNT => marks.server_count = small(value),
            NOT_BEFORE => marks.not_before = long(value).map(Timestamp::from_millis),
            EXPIRATION => expiration = text(value).and_then(|text| ShortString::try_new(text).ok()),
            HELD => marks.held = long(value).and_then(|number| u64::try_from(number).ok()),
            DEAD => marks.dead = value.as_field_table().cloned(),
            _ => drop(kept.insert(name.clone(), value.clone())),
        }
    }
    // Then it is what the server wrote down of our own ways with it.
    if marks.held.is_some() || marks.not_before.is_some() {
        kept.retain(|name, _| !HISTORY.contains(&name.as_str()));
    }
    let properties = properties.with_headers(FieldTable::from(kept));
    let properties = match expiration {
        Some(expiration) => properties.with_expiration(expiration),
        None => properties,
    };
    (properties, marks)
}

fn is_marked(headers: &FieldTable) -> bool {
    [DELIVERIES, SERVER_COUNT, NOT_BEFORE, EXPIRATION, HELD, DEAD]
        .iter()
        .any(|mark| headers.contains_key(mark))
}

/// A copy of a message to be published: its properties without what belongs to its earlier life.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    properties: BasicProperties,
    headers: BTreeMap<ShortString, AMQPValue>,
}

impl Copy {
    /// Of properties without marks.
    pub(crate) fn of(properties: &BasicProperties) -> Self {
        Self::with(properties, |name| !HISTORY.contains(&name))
    }

    /// The same with all that it has been through, for nobody but people to read.
    pub(crate) fn whole(properties: &BasicProperties) -> Self {
        Self::with(properties, |_| true)
    }

    fn with(properties: &BasicProperties, keeps: impl Fn(&str) -> bool) -> Self {
        let headers = properties.headers().iter().flatten();
        let headers = headers.filter(|(name, _)| keeps(name.as_str()));
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { properties: unchecked(properties), headers }
    }

    /// So many deliveries ended without an outcome.
    pub(crate) fn past(mut self, past: u32) -> Self {
        if past > 0 {
            self.headers.insert(DELIVERIES.into(), AMQPValue::LongLongInt(past.into()));
        }
        self
    }

    /// Held back until then. Its own time to live must not run out meanwhile.
    pub(crate) fn not_before(mut self, time: Timestamp) -> Self {
        self.headers.insert(NOT_BEFORE.into(), AMQPValue::LongLongInt(time.as_millis()));
        self.without_expiration()
    }

    pub(crate) fn held(mut self, number: u64) -> Self {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.headers.insert(HELD.into(), AMQPValue::LongLongInt(number));
        self
    }

    pub(crate) fn dead(mut self, why: FieldTable) -> Self {
        self.headers.insert(DEAD.into(), AMQPValue::FieldTable(why));
        self.without_expiration()
    }

    /// Rejected out of this queue, as the server writes it down where it does so itself.
    pub(crate) fn rejected(mut self, queue: &str, at: Timestamp) -> Self {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut death = FieldTable::default();
        death.insert("count".into(), AMQPValue::LongLongInt(1));
        death.insert("reason".into(), text(REJECTED));
        death.insert("queue".into(), text(queue));
        death.insert(
            "time".into(),
            AMQPValue::Timestamp(u64::try_from(at.as_millis() / 1000).unwrap_or_default()),
        );
        death.insert("exchange".into(), text(""));
        death.insert("routing-keys".into(), AMQPValue::FieldArray(vec![text(queue)].into()));
        let deaths = vec![AMQPValue::FieldTable(death)];
        self.headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        for (name, word) in [("exchange", ""), ("queue", queue), ("reason", REJECTED)] {
            self.headers.insert(format!("x-first-death-{name}").into(), text(word));
        }
        self
    }

    pub(crate) fn delivery_mode(mut self, mode: u8) -> Self {
        self.properties = self.properties.with_delivery_mode(mode);
        self
    }

    fn without_expiration(mut self) -> Self {
        if let Some(expiration) = self.properties.expiration() {
            let expiration = AMQPValue::LongString(expiration.as_str().into());
            self.headers.insert(EXPIRATION.into(), expiration);
            self.properties = rebuilt(&self.properties, Kept { delivery_mode: true, expiration: false });
        }
        self
    }

    /// What is published.
    pub(crate) fn build(self) -> BasicProperties {
        self.properties.with_headers(FieldTable::from(self.headers))
    }
}

/// Without the user: the server refuses whoever speaks for another.
fn unchecked(properties: &BasicProperties) -> BasicProperties {
    match properties.user_id() {
        Some(_) => rebuilt(properties, Kept { delivery_mode: true, expiration: true }),
        None => properties.clone(),
    }
}

/// As a message is that never had one.
pub(crate) fn without_delivery_mode(properties: &BasicProperties) -> BasicProperties {
    rebuilt(properties, Kept { delivery_mode: false, expiration: true })
}

/// What stays, of what may have to go.
#[derive(Clone, Copy)]
struct Kept {
    delivery_mode: bool,
    expiration: bool,
}

/// Properties can be set and not unset. Without the user in any case.
fn rebuilt(old: &BasicProperties, kept: Kept) -> BasicProperties {
    let mut new = BasicProperties::default();
    macro_rules! take {
        ($($get:ident $set:ident),*) => {
            $( if let Some(value) = old.$get() { new = new.$set(value.clone()); } )*
        };
    }
    take![
        content_type with_content_type,
        content_encoding with_content_encoding,
        headers with_headers,
        priority with_priority,
        correlation_id with_correlation_id,
        reply_to with_reply_to,
        message_id with_message_id,
        timestamp with_timestamp,
        kind with_type,
        app_id with_app_id,
        cluster_id with_cluster_id
    ];
    if let Some(mode) = old.delivery_mode().filter(|_| kept.delivery_mode) {
        new = new.with_delivery_mode(mode);
    }
    match old.expiration().clone().filter(|_| kept.expiration) {
        Some(expiration) => new.with_expiration(expiration),
        None => new,
    }
}

/// An integer of any size.
pub(crate) fn long(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(number) => Some(number.into()),
        AMQPValue::ShortShortUInt(number) => Some(number.into()),
        AMQPValue::ShortInt(number) => Some(number.into()),
        AMQPValue::ShortUInt(number) => Some(number.into()),
        AMQPValue::LongInt(number) => Some(number.into()),
        AMQPValue::LongUInt(number) => Some(number.into()),
        AMQPValue::LongLongInt(number) => Some(number),
        _ => None,
    }
}

/// The same, where a negative or huge one makes no sense.
pub(crate) fn small(value: &AMQPValue) -> Option<u32> {
    long(value).and_then(|number| u32::try_from(number).ok())
}

pub(crate) fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn celery() -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("task".into(), AMQPValue::LongString("shop.add".into()));
        headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::Void].into()));
        BasicProperties::default()
            .with_headers(headers)
            .with_correlation_id("1".into())
            .with_expiration("60000".into())
            .with_user_id("guest".into())
    }

    #[test]
    fn what_is_marked_is_read_and_taken_out_again() {
        let published = Copy::of(&celery()).past(2).not_before(Timestamp::from_millis(5)).held(7).build();
        assert_eq!(*published.expiration(), None, "a waiting message must not run out");
        assert_eq!(*published.user_id(), None);
        let (read, marks) = read(published);
        let expected =
            Marks { past: 2, not_before: Some(Timestamp::from_millis(5)), held: Some(7), ..Marks::default() };
        assert_eq!(marks, expected);
        assert_eq!(marks.delivery_count(), 3);
        assert_eq!(read.expiration().as_ref().map(ShortString::as_str), Some("60000"));
        let names: Vec<_> = read.headers().iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["task"], "an earlier life's list would have the server drop it");
    }

    #[test]
    fn dead_letters_keep_what_they_have_been_through() {
        let (read, marks) = read(Copy::whole(&celery()).dead(FieldTable::default()).build());
        assert!(marks.dead.is_some());
        assert!(read.headers().as_ref().is_some_and(|headers| headers.contains_key("x-death")));
    }

    #[test]
    fn a_quorum_queues_count_is_added() {
        let mut headers = FieldTable::default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(2));
        headers.insert("x-rwork-deliveries".into(), AMQPValue::LongLongInt(3));
        let (read, marks) = read(BasicProperties::default().with_headers(headers));
        assert_eq!(marks.delivery_count(), 6);
        assert_eq!(read.headers().as_ref().map(|headers| headers.inner().len()), Some(0));
    }

    #[test]
    fn what_is_not_marked_stays_as_it_is() {
        let plain = BasicProperties::default().with_correlation_id("1".into());
        assert_eq!(read(plain.clone()), (plain, Marks::default()));
    }
}
