//! One dead letter, readable: why it was given up, its headers, its body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rwork_broker::DeadLetter;
use rwork_protocol::json::{self, Value};
use rwork_protocol::{Message, Timestamp};
use serde_json::{Map, json};

use crate::printer::{Printer, Tone, tame};
use crate::render::{Blob, json as layout};

/// Longest body that is printed, in bytes; `--json` has all of it.
const BODY_SHOWN_MAX: usize = 8 << 10;

/// The task's name, if the headers tell it.
pub(super) fn task_of(letter: &DeadLetter) -> Option<String> {
    header(&letter.message, "task").filter(|name| !name.chars().any(char::is_control))
}

fn header(message: &Message, name: &str) -> Option<String> {
    let entries = json::entries(&message.headers).ok()?;
    let (_, value) = entries.into_iter().find(|(key, _)| key == name)?;
    json::text(&value).ok()
}

/// A time of this machine's zone, for people.
pub(super) fn when(at: Timestamp) -> String {
    chrono::DateTime::from_timestamp_micros(at.as_micros())
        .map(|time| time.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}

/// Prints all of it.
pub(super) fn print(printer: &Printer, letter: &DeadLetter) {
    let reason = &letter.reason;
    printer.pairs(
        &[
            ("id", letter.id.0.clone()),
            ("queue", letter.queue.to_string()),
            ("task", task_of(letter).unwrap_or_else(|| "unknown".to_owned())),
            (
                "task id",
                header(&letter.message, "id").map(|id| tame(&id)).unwrap_or_else(|| "unknown".to_owned()),
            ),
            ("reason", format!("{}: {}", reason.kind, tame(&reason.detail))),
            ("when", when(reason.at)),
            ("worker", tame(&reason.worker)),
            ("deliveries", letter.delivery_count.to_string()),
            ("content", content(&letter.message)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    printer.line("");
    printer.line(printer.tint(Tone::Strong, "headers"));
    printer.line(readable(&letter.message.headers));
    printer.line("");
    printer.line(printer.tint(Tone::Strong, "body"));
    printer.line(readable(&letter.message.body));
}

fn content(message: &Message) -> String {
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { tame(text) };
    format!("{}, {}", or_none(&message.content_type), or_none(&message.content_encoding))
}

/// JSON laid out, text as text, anything else by its size and type.
fn readable(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(empty)".to_owned();
    }
    if bytes.len() > BODY_SHOWN_MAX {
        return format!("{} (see --json)", Blob(bytes.to_vec()));
    }
    if let Ok(value) = Value::parse(bytes) {
        return layout::pretty(&value);
    }
    std::str::from_utf8(bytes).map_or_else(|_| Blob(bytes.to_vec()).to_string(), tame)
}

/// The machine form; headers and body as text where they are, else as base64.
pub(super) fn document(letter: &DeadLetter) -> serde_json::Value {
    let message = &letter.message;
    let mut document = Map::new();
    let mut put = |name: &str, value: serde_json::Value| document.insert(name.to_owned(), value);
    put("id", json!(letter.id.0));
    put("queue", json!(letter.queue.as_str()));
    put("task", json!(task_of(letter)));
    put("task_id", json!(header(message, "id")));
    put("delivery_count", json!(letter.delivery_count));
    put(
        "reason",
        json!({
            "kind": letter.reason.kind,
            "detail": letter.reason.detail,
            "worker": letter.reason.worker,
            "at": letter.reason.at.to_iso(),
        }),
    );
    put("content_type", json!(message.content_type));
    put("content_encoding", json!(message.content_encoding));
    put(
        "properties",
        json!({
            "correlation_id": message.properties.correlation_id,
            "reply_to": message.properties.reply_to,
            "priority": message.properties.priority,
            "delivery_mode": message.properties.delivery_mode,
            "expiration": message.properties.expiration,
        }),
    );
    for (name, bytes) in [("headers", &message.headers), ("body", &message.body)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => put(name, json!(text)),
            Err(_) => put(&format!("{name}_base64"), json!(STANDARD.encode(bytes))),
        };
    }
    serde_json::Value::Object(document)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rwork_broker::{DeadLetterId, Reason};
    use rwork_protocol::QueueName;

    use super::*;

    fn letter(headers: &str, body: &[u8]) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId("7".into()),
            queue: QueueName::new("celery").unwrap(),
            delivery_count: 5,
            message: Message {
                headers: Bytes::copy_from_slice(headers.as_bytes()),
                body: Bytes::copy_from_slice(body),
                ..Message::default()
            },
            reason: Reason {
                kind: "undecodable".into(),
                detail: "expected JSON".into(),
                worker: "w@h".into(),
                at: Timestamp::from_millis(0),
            },
        }
    }

    #[test]
    fn broken_messages_are_shown_too() {
        let broken = letter("{not json", b"\xff\xfe");
        assert_eq!(task_of(&broken), None);
        let document = document(&broken);
        assert_eq!(document["headers"], "{not json");
        assert_eq!(document["body_base64"], "//4=");
        assert_eq!(document["reason"]["at"], "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(readable(b"\xff\xfe"), "2 bytes of binary data");
        assert_eq!(readable(b"a\x1b[1m"), "a\\u{1b}[1m");
        assert_eq!(readable(b""), "(empty)");
        assert_eq!(readable(&vec![b'1'; BODY_SHOWN_MAX + 1]), "8.0 KiB of text (see --json)");
    }

    #[test]
    fn the_task_is_read_from_the_headers() {
        let whole = letter(r#"{"task": "math.add", "id": "x"}"#, b"[[2, 2], {}, {}]");
        assert_eq!(task_of(&whole).as_deref(), Some("math.add"));
        assert_eq!(task_of(&letter(r#"{"task": "a\u001bb"}"#, b"")), None);
        assert_eq!(readable(&whole.message.body), "[[2, 2], {}, {}]");
    }
}
