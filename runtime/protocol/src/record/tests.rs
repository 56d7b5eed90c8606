//! Records and exceptions, the captured ones byte for byte.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Compression, DecodeLimits, Message, TaskName, compress_stored, json};

fn record(text: &str) -> Result<Record, RecordError> {
    Record::decode(&Bytes::copy_from_slice(text.as_bytes()))
}

/// An extended one of a stamped task in a group, rwork's own field with it.
const EXTENDED: &str = r#"{"status": "SUCCESS", "result": 6, "traceback": null, "children": [], "date_done": "2026-11-20T10:19:12.791171+00:00", "group_id": "581b042d", "parent_id": "4a6cd562", "name": "wapp.xsum", "args": [[2, 4]], "kwargs": {}, "worker": "w1@host1", "retries": 0, "queue": "celery", "stamped_headers": ["tenant", "trace"], "tenant": "acme", "trace": ["a", "b"], "component": "sha256:00", "task_id": "c74eadbb"}"#;

/// Records of `celery-wire.md` §4.2 and §4.5, as Celery 5.7 stored them.
const CAPTURED: [&str; 5] = [
    r#"{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": "2026-11-20T10:19:12.791171+00:00", "task_id": "cdf05e57"}"#,
    r#"{"status": "RETRY", "result": {"exc_type": "ValueError", "exc_message": ["transient"], "exc_module": "builtins"}, "traceback": "Traceback (most recent call last):\n Retry in 1s: ValueError('transient')\n", "children": [[["759427bc", null], null]], "date_done": null, "task_id": "759427bc"}"#,
    r#"{"status": "FAILURE", "result": {"exc_type": "TimeLimitExceeded", "exc_message": [1], "exc_module": "billiard.exceptions"}, "traceback": null, "children": [], "date_done": "2026-11-20T10:19:21.094010+00:00", "task_id": "08c52b86"}"#,
    r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "celery.exceptions"}, "traceback": null, "children": [], "date_done": null, "task_id": "26f417ff"}"#,
    r#"{"status": "PROGRESS", "result": {"current": 3, "total": 10}, "traceback": null, "children": [], "date_done": null, "group_id": "g", "parent_id": "p", "component": "sha256:00", "task_id": "x"}"#,
];

#[test]
fn captured_records_are_read_and_written_back_byte_for_byte() {
    for captured in CAPTURED {
        let decoded = record(captured).unwrap();
        assert_eq!(decoded.encode(), captured);
        assert_eq!(decoded.exception().is_some(), decoded.status.is_exception(), "{captured}");
    }
    let extended = r#"{"status": "SUCCESS", "result": NaN, "name": "wapp.xsum", "retries": 0, "traceback": 7, "date_done": "2026-11-20T10:19:12", "task_id": "x"}"#;
    let decoded = record(extended).unwrap();
    assert_eq!((&*decoded.result, decoded.traceback), (&b"NaN"[..], None));
    assert_eq!(decoded.date_done, Timestamp::parse_iso("2026-11-20T10:19:12Z"));
}

#[test]
fn extended_records_keep_every_field() {
    let decoded = record(EXTENDED).unwrap();
    assert_eq!(decoded.encode(), EXTENDED);
    let extended = decoded.extended.unwrap();
    assert_eq!((extended.name.as_deref(), extended.queue.as_deref()), (Some("wapp.xsum"), Some("celery")));
    assert_eq!((extended.retries, extended.args.as_deref()), (Some(0), Some(&b"[[2, 4]]"[..])));
    assert_eq!(extended.stamps.len(), 2);
    assert!(decoded.other.is_empty());
    let unknown = r#"{"status": "SUCCESS", "result": 6, "traceback": null, "children": null, "date_done": null, "progress_meta": {"a": NaN}, "task_id": "x"}"#;
    let decoded = record(unknown).unwrap();
    assert_eq!((decoded.encode(), decoded.extended), (Bytes::from(unknown), None));
    // Of a synthetic request Celery knows nothing.
    let nothing = r#"{"status": "REVOKED", "result": null, "traceback": null, "children": null, "date_done": null, "name": null, "args": null, "kwargs": null, "worker": null, "retries": null, "queue": null, "task_id": "x"}"#;
    let decoded = record(nothing).unwrap();
    assert_eq!((decoded.encode(), decoded.extended), (Bytes::from(nothing), Some(Box::default())));
}

#[test]
fn a_call_tells_what_an_extended_record_needs() {
    let headers = r#"{"task": "t", "id": "i", "retries": 2, "stamped_headers": ["a", "status", "gone"], "stamps": {"a": 1, "b": 2, "status": "x"}}"#;
    let message = Message {
        headers: Bytes::from(headers),
        content_type: crate::JSON.to_owned(),
        body: Bytes::from_static(b"[[1], {\"k\": 2}, null]"),
        ..Message::default()
    };
    let message = crate::decode(&message, &DecodeLimits::default()).unwrap();
    let extended = Some(Box::new(Extended::of(&message, "w@h", "q")));
    let text = Record { extended, ..Record::new(message.headers.id, State::Success, "1") }.encode();
    // Neither is a stamp written that is not named, nor one that would hide the status.
    let expected = r#"{"status": "SUCCESS", "result": 1, "traceback": null, "children": null, "date_done": null, "name": "t", "args": [1], "kwargs": {"k": 2}, "worker": "w@h", "retries": 2, "queue": "q", "stamped_headers": ["a", "status", "gone"], "a": 1, "task_id": "i"}"#;
    assert_eq!(text, expected);
}

#[test]
fn stored_records_may_be_compressed_and_hold_half_characters() {
    let whole = record(EXTENDED).unwrap();
    let stored = compress_stored(EXTENDED.as_bytes(), Compression::Zlib).unwrap();
    assert_eq!(Record::decode_stored(&stored, 1 << 20).unwrap(), whole);
    assert_eq!(Record::decode_stored(&Bytes::from(EXTENDED), 0).unwrap(), whole);
    let error = Record::decode_stored(&stored, 100).unwrap_err().to_string();
    assert_eq!(
        error,
        "expected a result record that can be decompressed: expected at most 100 bytes, found more"
    );
    let half = record(r#"{"status": "SUCCESS", "result": "\ud800", "task_id": "x"}"#).unwrap();
    assert_eq!(half.result, r#""\ufffd""#);
}

#[test]
fn what_is_no_record_is_named() {
    for (text, part) in [
        ("", "expected a result record to be one JSON object"),
        ("[]", "expected a result record to be one JSON object"),
        ("{}", "expected `status` of a result record to be a state, found none"),
        (r#"{"status": 1, "task_id": "x"}"#, "found a number"),
        (r#"{"status": "SUCCESS"}"#, "expected `task_id` of a result record to be a task id, found none"),
        (r#"{"status": "SUCCESS", "task_id": ""}"#, "expected `task_id`"),
    ] {
        let error = record(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn exceptions_are_the_ones_that_clients_know() {
    let (task, id) = (TaskName::new("math.add").unwrap(), TaskId::new("i").unwrap());
    for (exception, text) in [
        (
            Exception::soft_time_limit(),
            r#"{"exc_type": "SoftTimeLimitExceeded", "exc_message": [], "exc_module": "billiard.exceptions"}"#,
        ),
        (
            Exception::hard_time_limit(Duration::from_secs(1)),
            r#"{"exc_type": "TimeLimitExceeded", "exc_message": [1], "exc_module": "billiard.exceptions"}"#,
        ),
        (
            Exception::hard_time_limit(Duration::from_millis(1500)),
            r#"{"exc_type": "TimeLimitExceeded", "exc_message": [1.5], "exc_module": "billiard.exceptions"}"#,
        ),
        (
            Exception::not_registered(&task),
            r#"{"exc_type": "NotRegistered", "exc_message": ["math.add"], "exc_module": "celery.exceptions"}"#,
        ),
        (
            Exception::revoked(RevokeReason::Expired),
            r#"{"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "celery.exceptions"}"#,
        ),
        (
            Exception::max_retries_exceeded(&task, &id, b"[1]", b"{}"),
            r#"{"exc_type": "MaxRetriesExceededError", "exc_message": ["Can't retry math.add[i] args:(1,) kwargs:{}"], "exc_module": "celery.exceptions"}"#,
        ),
        (
            Exception::reject("no"),
            r#"{"exc_type": "Reject", "exc_message": ["no", false], "exc_module": "celery.exceptions"}"#,
        ),
        (
            Exception::memory_limit(10, 20),
            r#"{"exc_type": "MemoryLimitExceeded", "exc_message": ["memory limit of 10 bytes exceeded: 20 bytes were asked for"], "exc_module": "rwork.errors"}"#,
        ),
    ] {
        assert_eq!(exception.encode(), text);
        assert_eq!(Exception::decode(&exception.encode()).unwrap(), exception);
    }
    let decoded = |text: &'static str| Exception::decode(&Bytes::from_static(text.as_bytes()));
    assert_eq!(
        decoded(r#"{"exc_type": "E", "exc_message": "x", "exc_module": null}"#).unwrap(),
        Exception::new("", "E", "x")
    );
    assert!(decoded(r#""text""#).is_err());
    assert!(
        decoded(r#"{"exc_message": []}"#)
            .unwrap_err()
            .to_string()
            .contains("`exc_type` of an encoded exception")
    );
}

#[test]
fn exceptions_are_shown_as_python_shows_them() {
    let two = Exception::with_args("m", "MyError", &b"[\"bad thing\", 7]"[..]);
    assert_eq!(two.to_string(), "MyError('bad thing', 7)");
    assert_eq!(Exception::new("m", "E", "x").to_string(), "E('x')");
    assert_eq!(Exception::soft_time_limit().to_string(), "SoftTimeLimitExceeded()");
    let chord = Exception::chord_dependency(&TaskId::new("i").unwrap(), &two);
    assert_eq!(chord.exc_message, "[\"Dependency i raised MyError('bad thing', 7)\"]");
}

proptest! {
    #[test]
    fn records_survive_the_wire(
        id in "[ -~]{1,40}",
        word in "[A-Z]{1,12}",
        texts in prop::collection::vec(prop::option::of(any::<String>()), 4),
        done in prop::option::of(-1_000_000_000_000_000_i64..4_000_000_000_000_000),
        children in any::<bool>(),
        extended in any::<bool>(),
        stamped in any::<bool>(),
    ) {
        let record = Record {
            traceback: texts[0].clone(),
            children: children.then(|| Bytes::from_static(b"[[[\"a\", null], null]]")),
            date_done: done.map(Timestamp::from_micros),
            group_id: texts[1].clone(),
            parent_id: texts[2].clone(),
            component: texts[3].clone(),
            extended: extended.then(|| Box::new(Extended {
                name: texts[0].clone(),
                args: children.then(|| Bytes::from_static(b"[NaN]")),
                kwargs: Some(Bytes::from_static(b"{}")),
                worker: texts[1].clone(),
                retries: done.map(|done| done as u32),
                queue: texts[2].clone(),
                stamped_headers: stamped.then(|| Bytes::from_static(b"[\"s\"]")),
                stamps: if stamped { vec![("s".to_owned(), Bytes::from_static(b"[1]"))] } else { Vec::new() },
            })),
            other: if children { vec![("x".to_owned(), Bytes::from_static(b"1"))] } else { Vec::new() },
            ..Record::new(TaskId::new(id).unwrap(), State::parse(&word), json::string("r"))
        };
        prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn no_record_panics(soup in json::tests::soup()) {
        let soup = Bytes::from(soup);
        if let Ok(record) = Record::decode(&soup) {
            prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
        if let Ok(exception) = Exception::decode(&soup) {
            prop_assert!(!exception.to_string().is_empty());
        }
    }
}
