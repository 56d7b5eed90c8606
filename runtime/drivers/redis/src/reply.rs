//! Taking a server's answers apart.

use bytes::Bytes;
use redis::Value;
use rwork_protocol::service::{Error, RedactedUrl};

/// An answer of another form than the command has: somebody else's server, or a proxy's mistake.
#[derive(Debug, thiserror::Error)]
#[error("expected {0} as its answer, got another")]
struct Odd(&'static str);

/// The error of an answer that is none.
pub(crate) fn odd(url: &RedactedUrl, act: &str, expected: &'static str) -> Error {
    Error::Act { act: format!("{act} at {url}"), retryable: true, source: Box::new(Odd(expected)) }
}

/// A string's bytes, without copying them.
pub(crate) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        Value::SimpleString(text) => Some(Bytes::from(text)),
        _ => None,
    }
}

pub(crate) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?.into()).ok()
}

pub(crate) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// A count: never negative.
pub(crate) fn count(value: &Value) -> Option<u64> {
    u64::try_from(int(value)?).ok()
}

pub(crate) fn list(value: Value) -> Option<Vec<Value>> {
    value.into_sequence().ok()
}

/// All strings of a list; what is none is left out.
pub(crate) fn texts(value: Value) -> Vec<String> {
    list(value).unwrap_or_default().into_iter().filter_map(text).collect()
}
