//! From AMQP's properties to a message, whoever wrote them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_protocol::{Message, Properties};
use serde::Serialize;

use super::HEADERS_AS_TEXT;

/// Most of Celery's headers fit.
const HEADERS_BYTES: usize = 1024;

/// The message that these properties and this body make.
pub(crate) fn read(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let text = |value: &Option<ShortString>| value.as_ref().map(|value| value.as_str().to_owned());
    Message {
        headers: properties.headers().as_ref().map_or(Bytes::from_static(b"{}"), headers),
        properties: Properties {
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            priority: *properties.priority(),
            delivery_mode: *properties.delivery_mode(),
            expiration: text(properties.expiration()),
        },
        content_type: text(properties.content_type()).unwrap_or_default(),
        content_encoding: text(properties.content_encoding()).unwrap_or_default(),
        body: Bytes::from(body),
    }
}

fn headers(table: &FieldTable) -> Bytes {
    if let Some(AMQPValue::LongString(text)) = table.inner().get(HEADERS_AS_TEXT) {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    let mut out = Vec::with_capacity(HEADERS_BYTES);
    put_table(table, &mut out);
    Bytes::from(out)
}

fn put_table(table: &FieldTable, out: &mut Vec<u8>) {
    out.push(b'{');
    for (place, (name, value)) in table.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_plain(name.as_str(), out);
        out.push(b':');
        put(value, out);
    }
    out.push(b'}');
}

fn put(value: &AMQPValue, out: &mut Vec<u8>) {
    match value {
        AMQPValue::Void => out.extend_from_slice(b"null"),
        AMQPValue::Boolean(truth) => put_plain(truth, out),
        AMQPValue::ShortShortInt(number) => put_plain(number, out),
        AMQPValue::ShortShortUInt(number) => put_plain(number, out),
        AMQPValue::ShortInt(number) => put_plain(number, out),
        AMQPValue::ShortUInt(number) => put_plain(number, out),
        AMQPValue::LongInt(number) => put_plain(number, out),
        AMQPValue::LongUInt(number) => put_plain(number, out),
        AMQPValue::LongLongInt(number) => put_plain(number, out),
        AMQPValue::Float(number) => put_plain(number, out),
        AMQPValue::Double(number) => put_plain(number, out),
        AMQPValue::Timestamp(seconds) => put_plain(seconds, out),
        AMQPValue::DecimalValue(decimal) => {
            put_plain(&(f64::from(decimal.value) / 10_f64.powi(decimal.scale.into())), out);
        }
        AMQPValue::ShortString(text) => put_plain(text.as_str(), out),
        AMQPValue::LongString(text) => put_text(text.as_bytes(), out),
        AMQPValue::ByteArray(bytes) => put_text(bytes.as_slice(), out),
        AMQPValue::FieldTable(table) => put_table(table, out),
        AMQPValue::FieldArray(values) => {
            out.push(b'[');
            for (place, value) in values.as_slice().iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                put(value, out);
            }
            out.push(b']');
        }
    }
}

/// Bytes that are no text are written as kombu writes them into JSON: in base64.
fn put_text(bytes: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => put_plain(text, out),
        Err(_) => put_plain(BASE64_STANDARD.encode(bytes).as_str(), out),
    }
}

fn put_plain<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Numbers and texts can always be written; whatever else comes to be is nothing rather than half of it.
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}
