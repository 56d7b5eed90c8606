//! Taking an envelope apart.

use std::ops::Range;
use std::str::Utf8Error;

use crate::{Message, Properties};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use jiter::{Jiter, JiterError, NumberAny, NumberInt, Peek};

use super::{Envelope, HeldEntry, Malformed, lenient};

/// As lenient as Python's: padding may be missing, the last bits may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// The priorities that kombu knows on Redis; others are moved to the nearest.
const PRIORITY_MAX: u8 = 9;
const REDELIVERED: &str = "\"redelivered\"";

type Parsed<T> = Result<T, Malformed>;

/// Reads an element of a queue's list. Headers stay the bytes they are.
///
/// # Errors
/// When it is not JSON, or has no body that can be had.
pub fn read(source: &Bytes) -> Parsed<Envelope> {
    lenient(source, |json| {
        // The parser does not look at strings that it steps over.
        let text = std::str::from_utf8(json).map_err(not_utf8)?;
        read_parts(json)?.assemble(source, text)
    })
}

fn read_parts(source: &[u8]) -> Parsed<Parts> {
    let mut json = Jiter::new(source).with_allow_inf_nan();
    let mut parts = Parts::default();
    let mut key = next_key(json.next_object())?;
    while let Some(part) = key {
        match part {
            Part::Body => parts.body = Some(string_span(&mut json)?),
            Part::ContentType => parts.content_type = string(&mut json)?,
            Part::ContentEncoding => parts.content_encoding = string(&mut json)?,
            Part::Headers => parts.headers = Some(span(&mut json)?),
            Part::Properties => parts.properties = Some(properties(&mut json)?),
            Part::Other => json.next_skip().map_err(broken)?,
        }
        key = next_key(json.next_key())?;
    }
    json.finish().map_err(broken)?;
    Ok(parts)
}

/// Reads a value of `unacked`: `[envelope, exchange, routing key]`.
///
/// # Errors
/// When it is no such array. The envelope itself is not looked into.
pub fn read_held(source: &Bytes) -> Parsed<HeldEntry> {
    lenient(source, |json| read_entry(source, json))
}

fn read_entry(source: &Bytes, json: &Bytes) -> Parsed<HeldEntry> {
    std::str::from_utf8(source).map_err(not_utf8)?;
    let mut json = Jiter::new(json).with_allow_inf_nan();
    let missing = || Malformed::new("an entry of `unacked` that is not `[envelope, exchange, routing key]`");
    json.next_array().map_err(broken)?.ok_or_else(missing)?;
    let envelope = source.slice(span(&mut json)?);
    let mut element = || {
        json.array_step().map_err(broken)?.ok_or_else(missing)?;
        string(&mut json)
    };
    let (exchange, routing_key) = (element()?, element()?);
    if json.array_step().map_err(broken)?.is_some() {
        return Err(missing());
    }
    json.finish().map_err(broken)?;
    Ok(HeldEntry {
        envelope,
        exchange: exchange.unwrap_or_default(),
        routing_key: routing_key.unwrap_or_default(),
    })
}

/// What can be had of a value of `unacked` that can't be read: the element in it and its queue, if it is one of ours
/// (`[<element>, "", "celery"]`); else all of it.
pub fn unwrap_held(source: &Bytes) -> (Bytes, Option<String>) {
    const BACK: &[u8] = b", \"\", ";
    let unwrap = || {
        let inner = source.strip_prefix(b"[")?.strip_suffix(b"]")?;
        let at = inner.windows(BACK.len()).rposition(|window| window == BACK)?;
        let queue = unescape(inner, at + BACK.len()..inner.len()).ok()?;
        Some((source.slice(1..1 + at), Some(queue)))
    };
    unwrap().unwrap_or_else(|| (source.clone(), None))
}

/// Keys of an envelope, so that none is held while its value is read.
enum Part {
    Body,
    ContentType,
    ContentEncoding,
    Headers,
    Properties,
    Other,
}

fn next_key(key: Result<Option<&str>, JiterError>) -> Parsed<Option<Part>> {
    Ok(key.map_err(broken)?.map(|key| match key {
        "body" => Part::Body,
        "content-type" => Part::ContentType,
        "content-encoding" => Part::ContentEncoding,
        "headers" => Part::Headers,
        "properties" => Part::Properties,
        _ => Part::Other,
    }))
}

#[derive(Default)]
struct Parts {
    body: Option<Range<usize>>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    headers: Option<Range<usize>>,
    properties: Option<Found>,
}

/// What `properties` has in it.
#[derive(Default)]
struct Found {
    properties: Properties,
    body_encoding: Option<String>,
    redelivered: bool,
    delivery_count: Option<u32>,
}

impl Parts {
    /// `text` differs from the source in half characters only.
    fn assemble(self, source: &Bytes, text: &str) -> Parsed<Envelope> {
        let found = self.properties.unwrap_or_default();
        let body = self.body.ok_or_else(|| Malformed::new("an object without `body`"))?;
        let body = decode_body(source, text, body, found.body_encoding.as_deref())?;
        let marked = self.headers.clone().and_then(|headers| text.get(headers)).is_some_and(is_marked);
        let headers = self.headers.map_or(Bytes::from_static(b"{}"), |headers| source.slice(headers));
        let message = Message {
            headers,
            properties: found.properties,
            content_type: self.content_type.unwrap_or_default(),
            content_encoding: self.content_encoding.unwrap_or_default(),
            body,
        };
        let redelivered = found.redelivered || marked;
        Ok(Envelope { message, redelivered, delivery_count: found.delivery_count.unwrap_or(1).max(1) })
    }
}

fn properties(json: &mut Jiter<'_>) -> Parsed<Found> {
    let mut found = Found::default();
    let mut key = json.next_object().map_err(broken)?;
    while let Some(name) = key {
        let properties = &mut found.properties;
        match name {
            "correlation_id" => properties.correlation_id = string(json)?,
            "reply_to" => properties.reply_to = string(json)?,
            "expiration" => properties.expiration = number_or_text(json)?,
            "priority" => properties.priority = priority(json)?,
            "delivery_mode" => {
                properties.delivery_mode = whole(json)?.and_then(|mode| u8::try_from(mode).ok())
            }
            "body_encoding" => found.body_encoding = string(json)?,
            "delivery_info" => delivery_info(json, &mut found)?,
            _ => json.next_skip().map_err(broken)?,
        }
        key = json.next_key().map_err(broken)?;
    }
    Ok(found)
}

fn delivery_info(json: &mut Jiter<'_>, found: &mut Found) -> Parsed<()> {
    let peek = json.peek().map_err(broken)?;
    if peek != Peek::Object {
        return json.known_skip(peek).map_err(broken);
    }
    let mut key = json.next_object().map_err(broken)?;
    while let Some(name) = key {
        match name {
            "redelivered" => found.redelivered = truth(json)?,
            "delivery_count" => {
                let count = whole(json)?.map(|count| count.clamp(1, i64::from(u32::MAX)));
                found.delivery_count = count.and_then(|count| u32::try_from(count).ok());
            }
            _ => json.next_skip().map_err(broken)?,
        }
        key = json.next_key().map_err(broken)?;
    }
    Ok(())
}

/// Whether headers carry `"redelivered": true`. Most don't have the key, which is quickly seen.
fn is_marked(headers: &str) -> bool {
    if !headers.contains(REDELIVERED) {
        return false;
    }
    let mut json = Jiter::new(headers.as_bytes()).with_allow_inf_nan();
    let mut look = || -> Parsed<bool> {
        let mut marked = false;
        let mut key = json.next_object().map_err(broken)?;
        while let Some(name) = key {
            match name {
                "redelivered" => marked = truth(&mut json)?,
                _ => json.next_skip().map_err(broken)?,
            }
            key = json.next_key().map_err(broken)?;
        }
        Ok(marked)
    };
    look().unwrap_or(false)
}

fn decode_body(source: &Bytes, text: &str, span: Range<usize>, encoding: Option<&str>) -> Parsed<Bytes> {
    // Without the quotes.
    let inner = span.start + 1..span.end.saturating_sub(1);
    let raw = source.get(inner.clone()).unwrap_or_default();
    let is_plain = !raw.contains(&b'\\');
    match encoding {
        Some("base64") if is_plain => decode_base64(raw),
        Some("base64") => decode_base64(unescape(text.as_bytes(), span)?.as_bytes()),
        None | Some("utf-8") if is_plain => Ok(source.slice(inner)),
        None | Some("utf-8") => Ok(Bytes::from(unescape(text.as_bytes(), span)?)),
        Some(other) => Err(Malformed::new(format!("the unknown body encoding {other:?}"))),
    }
}

fn unescape(source: &[u8], span: Range<usize>) -> Parsed<String> {
    let mut json = Jiter::new(source.get(span).unwrap_or_default());
    json.next_str().map(str::to_owned).map_err(broken)
}

/// As Python's `b64decode`: what is not of the alphabet is passed over.
fn decode_base64(text: &[u8]) -> Parsed<Bytes> {
    if let Ok(body) = BASE64.decode(text) {
        return Ok(Bytes::from(body));
    }
    let of_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let kept: Vec<u8> = text.iter().copied().filter(of_alphabet).collect();
    let body = BASE64
        .decode(&kept)
        .map_err(|error| Malformed::new(format!("a body that is not base64: {error}")))?;
    Ok(Bytes::from(body))
}

/// The bytes of the next value.
fn span(json: &mut Jiter<'_>) -> Parsed<Range<usize>> {
    let peek = json.peek().map_err(broken)?;
    let start = json.current_index();
    json.known_skip(peek).map_err(broken)?;
    Ok(start..json.current_index())
}

fn string_span(json: &mut Jiter<'_>) -> Parsed<Range<usize>> {
    match json.peek().map_err(broken)? {
        Peek::String => span(json),
        _ => Err(Malformed::new("a `body` that is not a string")),
    }
}

/// A string; anything else is as good as nothing.
fn string(json: &mut Jiter<'_>) -> Parsed<Option<String>> {
    match json.peek().map_err(broken)? {
        Peek::String => Ok(Some(json.known_str().map_err(broken)?.to_owned())),
        other => json.known_skip(other).map(|()| None).map_err(broken),
    }
}

fn truth(json: &mut Jiter<'_>) -> Parsed<bool> {
    match json.peek().map_err(broken)? {
        Peek::True => json.known_skip(Peek::True).map(|()| true).map_err(broken),
        other => json.known_skip(other).map(|()| false).map_err(broken),
    }
}

fn number_or_text(json: &mut Jiter<'_>) -> Parsed<Option<String>> {
    match json.peek().map_err(broken)? {
        peek if peek.is_num() => Ok(whole(json)?.map(|number| number.to_string())),
        _ => string(json),
    }
}

/// A whole number; a fraction is cut off as by Python's `int()`.
fn whole(json: &mut Jiter<'_>) -> Parsed<Option<i64>> {
    let peek = json.peek().map_err(broken)?;
    if !peek.is_num() {
        return json.known_skip(peek).map(|()| None).map_err(broken);
    }
    Ok(match json.known_number(peek).map_err(broken)? {
        NumberAny::Int(NumberInt::Int(number)) => Some(number),
        NumberAny::Int(NumberInt::BigInt(number)) if number.to_string().starts_with('-') => Some(i64::MIN),
        NumberAny::Int(NumberInt::BigInt(_)) => Some(i64::MAX),
        // The cast saturates, and makes 0 of NaN.
        NumberAny::Float(number) => Some(number as i64),
    })
}

/// `int(priority)` between 0 and 9; what can't be read is 0, as for kombu.
fn priority(json: &mut Jiter<'_>) -> Parsed<Option<u8>> {
    let number = match json.peek().map_err(broken)? {
        Peek::Null => return json.known_skip(Peek::Null).map(|()| None).map_err(broken),
        Peek::String => string(json)?.and_then(|text| text.trim().parse().ok()),
        _ => whole(json)?,
    };
    let clamped = number.unwrap_or(0).clamp(0, i64::from(PRIORITY_MAX));
    Ok(Some(u8::try_from(clamped).unwrap_or(0)))
}

fn broken(error: JiterError) -> Malformed {
    Malformed::new(format!("{} at byte {}", error.error_type, error.index))
}

fn not_utf8(error: Utf8Error) -> Malformed {
    Malformed::new(format!("a byte that is not UTF-8 at byte {}", error.valid_up_to()))
}
