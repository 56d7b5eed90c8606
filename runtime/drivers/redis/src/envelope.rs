//! kombu's envelope: the one JSON object that an element of a queue's list is (`celery-wire.md` §2.2).
//!
//! `read` takes one apart without copying what it can borrow, `write` makes one byte for byte as kombu does, `splice` marks
//! one as redelivered and leaves every other byte as it was. A message that is handed on is never encoded anew.
//!
//! It never looks into headers or body: that is the decoder's business.

mod read;
mod splice;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use rwork_protocol::Message;
use rwork_protocol::json::without_lone_surrogates;

pub(crate) use read::{read, read_held, unwrap_held};
pub(crate) use splice::{redelivered, renewed};
pub(crate) use write::write;

/// An envelope, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) message: Message,
    /// Somebody had it before: either of kombu's two marks.
    pub(crate) redelivered: bool,
    /// rwork's own count of deliveries, this one included; kombu carries it along and does not count.
    pub(crate) delivery_count: u32,
}

/// What is kept in `unacked`: an envelope and the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldEntry {
    /// As it was in the list.
    pub(crate) envelope: Bytes,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
}

/// An element that is no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an envelope of kombu's, found {found}")]
pub(crate) struct Malformed {
    found: String,
}

impl Malformed {
    fn new(found: impl Into<String>) -> Self {
        Self { found: found.into() }
    }
}

/// Parses JSON that may have half characters in its strings, which Python writes and no parser takes: then a text that has
/// `\ufffd` in their places, where every byte is at its old place.
fn lenient<T, E>(source: &Bytes, parse: impl Fn(&Bytes) -> Result<T, E>) -> Result<T, E> {
    parse(source).or_else(|error| parse(&without_lone_surrogates(source).ok_or(error)?))
}

/// Reads, marks and reads again: what holds for any bytes. For tests and the fuzz target.
#[doc(hidden)]
#[allow(clippy::panic, reason = "a panic is what a fuzzer looks for")]
pub fn fuzz(data: &[u8]) {
    let source = Bytes::copy_from_slice(data);
    if let Ok(entry) = read_held(&source) {
        assert!(entry.envelope.len() < source.len(), "more was read than there is");
    }
    let (element, _) = unwrap_held(&source);
    assert!(element.len() <= source.len(), "more was read than there is");
    let before = read(&source);
    if let Ok(envelope) = &before {
        assert!(envelope.message.size() <= source.len() + 2, "a message grew from reading");
        assert!(envelope.delivery_count > 0, "there is no delivery number 0");
    }
    let Ok(marked) = redelivered(&source, 7) else {
        assert!(before.is_err(), "an envelope that was read can't be marked");
        return;
    };
    let after = read(&marked);
    assert!(
        after.is_ok() == before.is_ok() || source.len() < marked.len(),
        "marking changed more than marks"
    );
    if let (Ok(before), Ok(after)) = (before, after) {
        assert!(after.redelivered && after.delivery_count == 7, "the marks can't be read");
        assert_eq!(before.message.body, after.message.body);
        assert_eq!(before.message.properties, after.message.properties);
    }
    let Ok(renewed) = renewed(&marked) else { panic!("what was marked can't be renewed") };
    if let Ok(fresh) = read(&renewed) {
        assert!(!fresh.redelivered && fresh.delivery_count == 1, "the marks were not taken back");
    }
}
