//! From a message to AMQP's properties.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_protocol::Message;
use serde_json::{Number, Value};

use super::HEADERS_AS_TEXT;

/// Properties and headers have to fit into one frame of the connection, of 128 KiB unless the server's `frame_max` says
/// otherwise. What is left is for rwork's own headers.
const HEADERS_BYTES_MAX: usize = 120 << 10;
/// From here on an integer is no `i64` any more, so that a double must have come of a longer one: 2^63.
const BEYOND_LONG: f64 = 9_223_372_036_854_775_808.0;

/// Why a message can't travel over AMQP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {size}")]
pub(crate) struct Unwritable {
    expected: String,
    size: usize,
}

/// The properties of a message, with its headers. The body goes beside them.
pub(crate) fn write(message: &Message) -> Result<BasicProperties, Unwritable> {
    let from = &message.properties;
    let mut to = BasicProperties::default();
    if !message.content_type.is_empty() {
        to = to.with_content_type(short("content_type", &message.content_type)?);
    }
    if !message.content_encoding.is_empty() {
        to = to.with_content_encoding(short("content_encoding", &message.content_encoding)?);
    }
    if let Some(id) = &from.correlation_id {
        to = to.with_correlation_id(short("correlation_id", id)?);
    }
    if let Some(queue) = &from.reply_to {
        to = to.with_reply_to(short("reply_to", queue)?);
    }
    if let Some(priority) = from.priority {
        to = to.with_priority(priority);
    }
    if let Some(mode) = from.delivery_mode {
        to = to.with_delivery_mode(mode);
    }
    if let Some(time) = &from.expiration {
        to = to.with_expiration(short("expiration", time)?);
    }
    Ok(to.with_headers(headers(&message.headers)?))
}

fn short(name: &str, text: &str) -> Result<ShortString, Unwritable> {
    ShortString::try_new(text).map_err(|_| Unwritable {
        expected: format!("the property `{name}` to be at most 255 bytes on AMQP"),
        size: text.len(),
    })
}

fn headers(text: &[u8]) -> Result<FieldTable, Unwritable> {
    let mut table = Table::default();
    if !text.is_empty() {
        match serde_json::from_slice(text) {
            Ok(Value::Object(headers)) => {
                headers.into_iter().for_each(|(name, value)| table.put(name, value))
            }
            _ => table.is_exact = false,
        }
    }
    let Table { mut fields, is_exact, mut bytes } = table;
    if !is_exact {
        bytes += text.len();
        fields.insert(HEADERS_AS_TEXT.into(), AMQPValue::LongString(text.to_vec().into()));
    }
    if bytes > HEADERS_BYTES_MAX {
        let expected = format!("headers of at most {HEADERS_BYTES_MAX} bytes on AMQP");
        return Err(Unwritable { expected, size: bytes });
    }
    Ok(FieldTable::from(fields))
}

/// A table while it grows.
struct Table {
    fields: BTreeMap<ShortString, AMQPValue>,
    /// Whether it says all that the JSON said.
    is_exact: bool,
    /// What it weighs on the wire, roughly.
    bytes: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { fields: BTreeMap::new(), is_exact: true, bytes: 0 }
    }
}

/// A field's kind and the length of a name or a text.
const FIELD_BYTES: usize = 6;
/// The longest number.
const NUMBER_BYTES: usize = 8;

impl Table {
    fn put(&mut self, name: String, value: Value) {
        self.bytes += name.len() + FIELD_BYTES;
        match ShortString::try_new(name) {
            Ok(name) => {
                let value = self.value(value);
                self.fields.insert(name, value);
            }
            Err(_) => self.is_exact = false,
        }
    }

    fn value(&mut self, value: Value) -> AMQPValue {
        self.bytes += FIELD_BYTES;
        match value {
            Value::Null => AMQPValue::Void,
            Value::Bool(truth) => AMQPValue::Boolean(truth),
            Value::Number(number) => self.number(&number),
            Value::String(text) => {
                self.bytes += text.len();
                AMQPValue::LongString(text.into())
            }
            Value::Array(values) => {
                let values: Vec<_> = values.into_iter().map(|value| self.value(value)).collect();
                AMQPValue::FieldArray(values.into())
            }
            Value::Object(fields) => {
                let mut table = Self::default();
                fields.into_iter().for_each(|(name, value)| table.put(name, value));
                self.is_exact &= table.is_exact;
                self.bytes += table.bytes;
                AMQPValue::FieldTable(FieldTable::from(table.fields))
            }
        }
    }

    fn number(&mut self, number: &Number) -> AMQPValue {
        self.bytes += NUMBER_BYTES;
        if let Some(number) = number.as_i64() {
            return AMQPValue::LongLongInt(number);
        }
        let double = number.as_f64().unwrap_or_default();
        self.is_exact &= double.abs() < BEYOND_LONG;
        AMQPValue::Double(double)
    }
}
