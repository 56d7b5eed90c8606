//! kombu's envelope: the one JSON object that an element of a queue's list is (`celery-wire.md` §2.2).
//!
//! `read` takes one apart without copying what it can borrow, `write` makes one byte for byte as kombu does, `splice` marks
//! one as redelivered and leaves every other byte as it was. A message that is handed on is never encoded anew.
//!
//! Headers and body are never looked into: that is the decoder's business.

mod read;
mod splice;
mod write;

#[cfg(test)]
mod tests;

use crate::Message;
use crate::json::without_lone_surrogates;
use bytes::Bytes;

pub use read::{read, read_held, unwrap_held};
pub use splice::{redelivered, renewed};
pub use write::write;

/// An envelope, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Its message.
    pub message: Message,
    /// Somebody had it before: either of kombu's two marks.
    pub redelivered: bool,
    /// rwork's own count of deliveries, this one included; kombu carries it along and does not count.
    pub delivery_count: u32,
}

/// Entry of `unacked`: an envelope and the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldEntry {
    /// As it was in the list.
    pub envelope: Bytes,
    /// Exchange to which it goes back; empty: the default one.
    pub exchange: String,
    /// Its routing key there.
    pub routing_key: String,
}

/// An element that is no envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an envelope of kombu's, found {found}")]
pub struct Malformed {
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
