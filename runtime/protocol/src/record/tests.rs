//! Records and exceptions, the captured ones byte for byte.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{TaskName, json};

fn record(text: &str) -> Result<Record, RecordError> {
    Record::decode(&Bytes::copy_from_slice(text.as_bytes()))
}

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
    ) {
        let record = Record {
            traceback: texts[0].clone(),
            children: children.then(|| Bytes::from_static(b"[[[\"a\", null], null]]")),
            date_done: done.map(Timestamp::from_micros),
            group_id: texts[1].clone(),
            parent_id: texts[2].clone(),
            component: texts[3].clone(),
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
