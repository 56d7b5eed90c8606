//! Envelopes as kombu writes them, as others do, and as nobody should.

use crate::{Message, Properties};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Captured from Celery 5.7 (`celery-wire.md` §1.1): one line, as it stands in the list.
const CAPTURED: &str = concat!(
    r#"{"body": "W1syXSwgeyJ5IjogM30sIHsiY2FsbGJhY2tzIjogbnVsbH1d", "content-encoding": "utf-8", "#,
    r#""content-type": "application/json", "headers": {"lang": "py", "task": "wapp.add", "id": "my-id", "#,
    r#""shadow": "shadowed.add", "eta": "2026-11-20T10:18:49.628546+00:00", "#,
    r#""expires": "2026-11-20T10:19:49.628546+00:00", "group": null, "group_index": null, "retries": 0, "#,
    r#""timelimit": [30, 20], "root_id": "my-id", "parent_id": null, "argsrepr": "(2,)", "#,
    r#""kwargsrepr": "{'y': 3}", "origin": "gen29203@host1", "ignore_result": true, "#,
    r#""replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}, "x-trace": "abc", "n": 1}, "#,
    r#""properties": {"correlation_id": "my-id", "reply_to": "6b7d5987-25a6-38f3-973b-da344a3fd120", "#,
    r#""delivery_mode": 2, "expiration": "120000", "delivery_info": {"exchange": "", "routing_key": "celery"}, "#,
    r#""priority": 5, "body_encoding": "base64", "delivery_tag": "a15f6c5f-c17e-4bab-9fd9-7fae6cb5210f"}}"#,
);
const TAG: &str = "a15f6c5f-c17e-4bab-9fd9-7fae6cb5210f";

fn read_text(text: &str) -> Result<Envelope, Malformed> {
    read(&Bytes::copy_from_slice(text.as_bytes()))
}

/// Celery's message as we read it.
fn captured() -> Message {
    read_text(CAPTURED).unwrap().message
}

#[test]
fn celerys_envelope_is_read() {
    let envelope = read_text(CAPTURED).unwrap();
    assert!(!envelope.redelivered);
    assert_eq!(envelope.delivery_count, 1);
    let message = envelope.message;
    assert_eq!(&message.body[..], br#"[[2], {"y": 3}, {"callbacks": null}]"#);
    assert_eq!((&*message.content_type, &*message.content_encoding), ("application/json", "utf-8"));
    assert!(message.headers.starts_with(br#"{"lang": "py", "#) && message.headers.ends_with(br#""n": 1}"#));
    let expect = Properties {
        correlation_id: Some("my-id".to_owned()),
        reply_to: Some("6b7d5987-25a6-38f3-973b-da344a3fd120".to_owned()),
        priority: Some(5),
        delivery_mode: Some(2),
        expiration: Some("120000".to_owned()),
    };
    assert_eq!(message.properties, expect);
}

#[test]
fn ours_is_celerys_byte_for_byte() {
    let written = write(&captured(), "", "celery", TAG).unwrap();
    assert_eq!(std::str::from_utf8(&written).unwrap(), CAPTURED);
}

#[test]
fn what_is_not_ascii_is_escaped() {
    let headers = "{\"id\":\"ünï\",\"x\":\"\u{1F980}\\u0000\"}";
    let message = Message { headers: Bytes::from_static(headers.as_bytes()), ..captured() };
    let written = write(&message, "é", "\u{7f}", TAG).unwrap();
    assert!(written.is_ascii());
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains(r#""headers": {"id":"\u00fcn\u00ef","x":"\ud83e\udd80\u0000"}, "#), "{text}");
    assert!(text.contains(r#"{"exchange": "\u00e9", "routing_key": "\u007f"}"#), "{text}");
}

#[test]
fn headers_that_would_break_the_envelope_are_refused() {
    for headers in ["[]", "null", "{", "{\"a\": 1} ,", "{\"a\": \"\u{1}\"}x", "\"a\""] {
        let message = Message { headers: Bytes::copy_from_slice(headers.as_bytes()), ..captured() };
        assert!(write(&message, "", "celery", TAG).is_err(), "{headers}");
    }
    let message = Message { headers: Bytes::new(), ..captured() };
    assert!(
        String::from_utf8(write(&message, "", "celery", TAG).unwrap()).unwrap().contains("\"headers\": {}")
    );
}

#[test]
fn other_producers_are_understood() {
    let body = |text: &str| read_text(text).unwrap().message.body;
    // Only these two keys are needed.
    assert_eq!(&body(r#"{"body": "plain", "properties": {"delivery_tag": "1"}}"#)[..], b"plain");
    assert_eq!(&body(r#"{"body":"pl\u0061in","properties":{"body_encoding":"utf-8"}}"#)[..], b"plain");
    assert_eq!(&body(r#"{"properties": {"body_encoding": null}, "body": "a\\b"}"#)[..], b"a\\b");
    for base64 in ["YWI=", "YWI", "YW\\nI=", "Y W I =", "YW\\/I".replace("\\/", "").as_str(), "YWL="] {
        let text = format!(r#"{{"body": "{base64}", "properties": {{"body_encoding": "base64"}}}}"#);
        assert_eq!(&body(&text)[..], b"ab", "{base64}");
    }
    assert_eq!(&body(r#"{"body": "\/\/8=", "properties": {"body_encoding": "base64"}}"#)[..], b"\xff\xff");
    let bare = read_text(r#"{"body": ""}"#).unwrap();
    assert_eq!(&bare.message.headers[..], b"{}");
    assert_eq!(bare.message.properties, Properties::default());
    // Of a key that is there twice the last one counts, as in Python.
    assert_eq!(&body(r#"{"body": "one", "body": "two"}"#)[..], b"two");
}

#[test]
fn priorities_are_clamped_as_by_kombu() {
    for (json, expect) in [
        ("5", Some(5)),
        ("0", Some(0)),
        ("-3", Some(0)),
        ("10", Some(9)),
        ("255", Some(9)),
        ("1e30", Some(9)),
        ("5.9", Some(5)),
        ("NaN", Some(0)),
        ("123456789012345678901234567890", Some(9)),
        ("\"7\"", Some(7)),
        ("\"x\"", Some(0)),
        ("[]", Some(0)),
        ("null", None),
    ] {
        let text = format!(r#"{{"body": "", "properties": {{"priority": {json}}}}}"#);
        assert_eq!(read_text(&text).unwrap().message.properties.priority, expect, "{json}");
    }
}

#[test]
fn odd_properties_are_as_good_as_none() {
    let text = r#"{"body": "", "content-type": 5, "content-encoding": null, "headers": [1, NaN], "properties":
        {"correlation_id": 7, "reply_to": {}, "delivery_mode": 300, "expiration": 5000, "delivery_info": [1]}}"#;
    let message = read_text(text).unwrap().message;
    assert_eq!(&message.headers[..], b"[1, NaN]");
    assert_eq!((&*message.content_type, &*message.content_encoding), ("", ""));
    assert_eq!(
        message.properties,
        Properties { expiration: Some("5000".to_owned()), ..Properties::default() }
    );
}

#[test]
fn what_is_no_envelope_is_malformed() {
    for text in [
        "",
        "garbage",
        "null",
        "[]",
        "5",
        "{}",
        r#"{"body": null}"#,
        r#"{"body": {}}"#,
        r#"{"body": "a"} x"#,
        r#"{"body": "a""#,
        r#"{"body": "a", "properties": null}"#,
        r#"{"body": "a", "properties": {"body_encoding": "hex"}}"#,
        r#"{"body": "a", "properties": {"body_encoding": "base64"}}"#,
    ] {
        let refusal = read_text(text);
        assert!(refusal.is_err(), "{text}: {refusal:?}");
    }
    assert!(read(&Bytes::from_static(b"{\"body\": \"\xff\"}")).is_err());
    let deep = format!(r#"{{"body": "", "headers": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(read_text(&deep).is_err());
}

/// Python's `json.dumps` writes a lone surrogate as an escape, and Celery's client writes arguments into `argsrepr` too.
#[test]
fn half_characters_are_read_and_kept() {
    let text = CAPTURED.replace("(2,)", r"('\ud800 \udc00\ud83e\udd80',)");
    let envelope = read_text(&text).unwrap();
    assert!(
        envelope.message.headers.windows(6).any(|window| window == br"\ud800"),
        "headers stay as they are"
    );
    assert_eq!(envelope.message.body, captured().body);
    let written = write(&envelope.message, "", "celery", TAG).unwrap();
    assert_eq!(std::str::from_utf8(&written).unwrap(), text);

    let marked = redelivered(&Bytes::from(text.clone()), 3).unwrap();
    assert!(marked.windows(6).any(|window| window == br"\ud800"));
    let read_again = read(&marked).unwrap();
    assert!(read_again.redelivered && read_again.delivery_count == 3);
    // kombu's own mark, in headers only.
    let kombus = text.replace("\"n\": 1}", "\"n\": 1, \"redelivered\": true}");
    assert!(read_text(&kombus).unwrap().redelivered);

    let held = Bytes::from(format!("[{text}, \"\", \"celery\"]"));
    assert_eq!(read_held(&held).unwrap().envelope, text);
    // Wherever else it stands, and in keys.
    for odd in [
        r#"{"body": "", "headers": {"\ud800": [{"\udfff": 1}]}, "properties": {"correlation_id": "a\ud800"}}"#,
        r#"{"body": "\ud800", "properties": {}}"#,
        r#"{"\udc00": 1, "body": "", "properties": {"delivery_info": {"routing_key": "\ud800"}}}"#,
    ] {
        assert!(read_text(odd).is_ok(), "{odd}");
        assert!(read(&redelivered(&Bytes::from_static(odd.as_bytes()), 2).unwrap()).unwrap().redelivered);
    }
    let id = r#"{"body": "", "properties": {"correlation_id": "a\ud800"}}"#;
    assert_eq!(read_text(id).unwrap().message.properties.correlation_id.as_deref(), Some("a\u{fffd}"));
}

#[test]
fn entries_of_unacked_are_read() {
    let held = |text: &str| read_held(&Bytes::copy_from_slice(text.as_bytes()));
    let entry = held(&format!(r#"[{CAPTURED}, "ex\u0041", "celery"]"#)).unwrap();
    assert_eq!(&entry.envelope[..], CAPTURED.as_bytes());
    assert_eq!((&*entry.exchange, &*entry.routing_key), ("exA", "celery"));
    for text in [
        "",
        "[]",
        "[{}]",
        "[{}, \"\"]",
        "[{}, \"\", \"q\", 1]",
        "{}",
        "[{}, \"\", \"q\"] x",
        "[garbage, \"\", \"q\"]",
    ] {
        assert!(held(text).is_err(), "{text}");
    }
    let unwrap = |text: &'static str| unwrap_held(&Bytes::from_static(text.as_bytes()));
    let (element, queue) = unwrap(r#"[garb, "", "age, "", "ce\u006cery"]"#);
    assert_eq!((&element[..], queue.as_deref()), (&br#"garb, "", "age"#[..], Some("celery")));
    assert_eq!(unwrap("nonsense"), (Bytes::from_static(b"nonsense"), None));
}

#[test]
fn marks_are_set_as_by_kombu() {
    let marked = redelivered(&Bytes::from_static(CAPTURED.as_bytes()), 2).unwrap();
    let expect = CAPTURED.replace(r#""n": 1}"#, r#""n": 1, "redelivered": true}"#).replace(
        r#""routing_key": "celery"}"#,
        r#""routing_key": "celery", "redelivered": true, "delivery_count": 2}"#,
    );
    assert_eq!(std::str::from_utf8(&marked).unwrap(), expect);
    let envelope = read(&marked).unwrap();
    assert!(envelope.redelivered);
    assert_eq!(envelope.delivery_count, 2);
    // Again: values are replaced where they stand.
    let again = redelivered(&marked, 17).unwrap();
    assert_eq!(std::str::from_utf8(&again).unwrap(), expect.replace("count\": 2", "count\": 17"));
    let fresh = renewed(&again).unwrap();
    let read_again = read(&fresh).unwrap();
    assert!(!read_again.redelivered);
    assert_eq!(read_again.delivery_count, 1);
    assert_eq!(renewed(&Bytes::from_static(CAPTURED.as_bytes())).unwrap(), CAPTURED.as_bytes());
}

#[test]
fn marks_find_a_place_everywhere() {
    for (before, after) in [
        (
            r#"{"body": ""}"#,
            r#"{"body": "", "properties": {"delivery_info": {"redelivered": true, "delivery_count": 2}}}"#,
        ),
        (r#"{}"#, r#"{"properties": {"delivery_info": {"redelivered": true, "delivery_count": 2}}}"#),
        (
            r#"{"headers": {}, "properties": {}}"#,
            r#"{"headers": {"redelivered": true}, "properties": {"delivery_info": {"redelivered": true, "delivery_count": 2}}}"#,
        ),
        (
            r#"{"headers": null, "properties": {"delivery_tag": "t"}}"#,
            r#"{"headers": null, "properties": {"delivery_info": {"redelivered": true, "delivery_count": 2}, "delivery_tag": "t"}}"#,
        ),
        (
            r#" {"properties" : { "delivery_info" : {  } , "x": 1 } , "headers":{ "redelivered": false }} "#,
            r#" {"properties" : { "delivery_info" : {  "redelivered": true, "delivery_count": 2} , "x": 1 } , "headers":{ "redelivered": true }} "#,
        ),
        (
            r#"{"properties": {"delivery_info": null, "delivery_info": 5}}"#,
            r#"{"properties": {"delivery_info": null, "delivery_info": {"redelivered": true, "delivery_count": 2}}}"#,
        ),
    ] {
        let marked = redelivered(&Bytes::from_static(before.as_bytes()), 2).unwrap();
        assert_eq!(std::str::from_utf8(&marked).unwrap(), after);
    }
    for text in ["", "[]", "garbage", "{\"a\": }"] {
        assert!(redelivered(&Bytes::from_static(text.as_bytes()), 2).is_err(), "{text}");
    }
}

fn json_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just("\"body\"".to_owned()),
            Just("\"headers\"".to_owned()),
            Just("\"properties\"".to_owned()),
            Just("\"delivery_info\"".to_owned()),
            Just("\"redelivered\"".to_owned()),
            Just("\"delivery_count\"".to_owned()),
            Just("\"body_encoding\"".to_owned()),
            Just("\"base64\"".to_owned()),
            Just("\"priority\"".to_owned()),
            "[\\[\\]{}:, ]",
            "true|false|null|-?[0-9]{1,20}|1e9|NaN",
            "\"[a-zA-Z0-9+/=\\\\]{0,8}\"",
        ],
        0..60,
    )
    .prop_map(|parts| parts.concat())
}

fn properties() -> impl Strategy<Value = Properties> {
    let text = || proptest::option::of(".{0,20}");
    (text(), text(), proptest::option::of(0..=9_u8), proptest::option::of(any::<u8>()), text()).prop_map(
        |(correlation_id, reply_to, priority, delivery_mode, expiration)| Properties {
            correlation_id,
            reply_to,
            priority,
            delivery_mode,
            expiration,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let header = (".{0,10}", ".{0,20}").prop_map(|(key, value)| {
        let mut entry = Vec::new();
        crate::json::write_string(&mut entry, &key);
        entry.extend_from_slice(b": ");
        crate::json::write_string(&mut entry, &value);
        String::from_utf8(entry).unwrap()
    });
    let headers =
        proptest::collection::vec(header, 0..5).prop_map(|entries| format!("{{{}}}", entries.join(", ")));
    (headers, properties(), ".{0,20}", ".{0,20}", proptest::collection::vec(any::<u8>(), 0..100)).prop_map(
        |(headers, properties, content_type, content_encoding, body)| Message {
            headers: headers.into(),
            properties,
            content_type,
            content_encoding,
            body: body.into(),
        },
    )
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_went(message in message(), exchange in ".{0,10}", key in ".{0,10}") {
        let written = write(&message, &exchange, &key, TAG).unwrap();
        prop_assert!(written.is_ascii());
        // The script finds the tag near the end.
        let tail = format!("\"delivery_tag\": \"{TAG}\"}}}}");
        prop_assert!(written.ends_with(tail.as_bytes()));
        let envelope = read(&written.into()).unwrap();
        prop_assert_eq!(envelope.message, message);
        prop_assert!(!envelope.redelivered);
    }

    #[test]
    fn marking_keeps_every_other_byte(message in message(), count in 1..u32::MAX) {
        let written = Bytes::from(write(&message, "", "celery", TAG).unwrap());
        let marked = redelivered(&written, count).unwrap();
        let before = read(&written).unwrap();
        let after = read(&marked).unwrap();
        prop_assert!(after.redelivered);
        prop_assert_eq!(after.delivery_count, count);
        prop_assert_eq!(&after.message.body, &before.message.body);
        prop_assert_eq!(&after.message.properties, &before.message.properties);
        // Taking the marks out by hand leaves the original.
        let text = std::str::from_utf8(&marked).unwrap();
        let info = format!(", \"redelivered\": true, \"delivery_count\": {count}");
        prop_assert_eq!(text.matches(&info).count(), 1);
        let stripped = text.replacen(&info, "", 1);
        let header = if &message.headers[..] == b"{}" { "\"redelivered\": true" } else { ", \"redelivered\": true" };
        let at = stripped.rfind(&format!("{header}}}, \"properties\"")).unwrap();
        let stripped = format!("{}{}", &stripped[..at], &stripped[at + header.len()..]);
        prop_assert_eq!(stripped.as_bytes(), &written[..]);
    }

    #[test]
    fn nothing_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in json_text()) {
        for source in [Bytes::from(bytes), Bytes::from(text.clone()), Bytes::from(format!("{{{text}}}"))] {
            crate::fuzzing::kombu_envelope(&source);
        }
    }
}
