//! Making an envelope, byte for byte as kombu does.

use crate::Message;
use crate::json::{Kind, check, write_string};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{Malformed, lenient};

/// Writes an envelope with the separators, the order and the escapes of Python's `json.dumps`. `delivery_tag` comes last:
/// the script that takes looks for it from the end.
///
/// A property that the message does not have is left out, so that it comes back as it went; kombu reads it so too.
///
/// # Errors
/// When the headers are not a JSON object.
pub fn write(message: &Message, exchange: &str, routing_key: &str, tag: &str) -> Result<Vec<u8>, Malformed> {
    let properties = &message.properties;
    let mut out = Vec::with_capacity(message.body.len() / 3 * 4 + message.headers.len() + 512);
    out.extend_from_slice(b"{\"body\": \"");
    write_base64(&mut out, &message.body);
    out.extend_from_slice(b"\", \"content-encoding\": ");
    write_string(&mut out, &message.content_encoding);
    out.extend_from_slice(b", \"content-type\": ");
    write_string(&mut out, &message.content_type);
    out.extend_from_slice(b", \"headers\": ");
    write_headers(&mut out, &message.headers)?;
    out.extend_from_slice(b", \"properties\": {");
    for (name, text) in [("correlation_id", &properties.correlation_id), ("reply_to", &properties.reply_to)] {
        if let Some(text) = text {
            write_text(&mut out, name, text);
        }
    }
    if let Some(mode) = properties.delivery_mode {
        out.extend_from_slice(format!("\"delivery_mode\": {mode}, ").as_bytes());
    }
    if let Some(expiration) = &properties.expiration {
        write_text(&mut out, "expiration", expiration);
    }
    out.extend_from_slice(b"\"delivery_info\": {\"exchange\": ");
    write_string(&mut out, exchange);
    out.extend_from_slice(b", \"routing_key\": ");
    write_string(&mut out, routing_key);
    out.extend_from_slice(b"}, ");
    if let Some(priority) = properties.priority {
        out.extend_from_slice(format!("\"priority\": {priority}, ").as_bytes());
    }
    out.extend_from_slice(b"\"body_encoding\": \"base64\", \"delivery_tag\": ");
    write_string(&mut out, tag);
    out.extend_from_slice(b"}}");
    Ok(out)
}

fn write_text(out: &mut Vec<u8>, name: &str, text: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\": ");
    write_string(out, text);
    out.extend_from_slice(b", ");
}

fn write_base64(out: &mut Vec<u8>, body: &[u8]) {
    let start = out.len();
    out.resize(start + body.len().div_ceil(3) * 4, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    // The room is exactly what is needed, so that it can't fail.
    let written = STANDARD.encode_slice(body, room).unwrap_or(0);
    out.truncate(start + written);
}

/// Headers as they are, but in ASCII: beyond it there are only characters in strings, and those can be escaped.
fn write_headers(out: &mut Vec<u8>, headers: &Bytes) -> Result<(), Malformed> {
    if headers.is_empty() {
        out.extend_from_slice(b"{}");
        return Ok(());
    }
    match lenient(headers, |headers| check(headers)) {
        Ok(Kind::Object) => {}
        Ok(kind) => return Err(Malformed::new(format!("headers that are {kind}, not an object"))),
        Err(error) => return Err(Malformed::new(format!("headers that are not JSON: {error}"))),
    }
    if headers.is_ascii() {
        out.extend_from_slice(headers);
        return Ok(());
    }
    let text = std::str::from_utf8(headers).map_err(|_| Malformed::new("headers that are not UTF-8"))?;
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character as u8);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
    Ok(())
}
