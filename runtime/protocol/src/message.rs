//! A message as every broker carries it: headers, properties, body.

use bytes::Bytes;

/// One message on the wire, not yet looked into.
///
/// Headers stay encoded until the decode step, so that a driver moves bytes and a malformed header is the decoder's to
/// refuse, with the message whole for the dead letters. Cloning shares every part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// One JSON object: AMQP's header table, or `headers` of kombu's Redis envelope.
    pub headers: Bytes,
    /// AMQP's basic properties, or `properties` of the envelope.
    pub properties: Properties,
    /// Media type of the body (`content-type`); empty when absent.
    pub content_type: String,
    /// Character set of the body (`content-encoding`); empty when absent.
    pub content_encoding: String,
    /// The serialized, possibly compressed body.
    pub body: Bytes,
}

impl Message {
    /// What the message weighs in memory and in a store, in bytes.
    pub fn size(&self) -> usize {
        self.headers.len() + self.body.len()
    }
}

/// Message properties (`celery-wire.md` §1.3): those that a worker reads or must copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The task id, for the rpc result backend.
    pub correlation_id: Option<String>,
    /// Name of the producer's rpc result queue.
    pub reply_to: Option<String>,
    /// 0–9 on Redis and embedded, 0–255 on AMQP.
    pub priority: Option<u8>,
    /// 2: persistent (the default), 1: transient.
    pub delivery_mode: Option<u8>,
    /// Time to live in whole milliseconds, as text, set when `expires` was given.
    pub expiration: Option<String>,
}
