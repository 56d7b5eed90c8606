//! Signatures as Celery writes them, and sending them from a task.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use rwork::testing::TestContext;
use rwork::{SendError, Signature, TaskError, json};

/// What a task that sends `signature` sends.
fn sent(signature: Signature) -> rwork::Value {
    let test = TestContext::new("x");
    assert_eq!(test.send(signature).unwrap().id, "sent-1");
    test.sent().remove(0)
}

#[test]
fn a_simple_signature_has_celerys_six_members() {
    assert_eq!(
        sent(Signature::new("math.add")),
        json!({"task": "math.add", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false})
    );
    let full = Signature::new("mail.send")
        .arg("ada")
        .args((1, 2.5, json!(null)))
        .kwarg("subject", "first")
        .kwarg("subject", "second")
        .queue("mail")
        .task_id("id-1")
        .countdown(Duration::from_secs(90))
        .expires(Duration::from_millis(1_500))
        .option("priority", 3)
        .immutable();
    assert_eq!(
        sent(full),
        json!({
            "task": "mail.send",
            "args": ["ada", 1, 2.5, null],
            "kwargs": {"subject": "second"},
            "options": {"queue": "mail", "task_id": "id-1", "countdown": 90, "expires": 1.5, "priority": 3},
            "subtask_type": null,
            "immutable": true
        })
    );
}

#[test]
fn workflows_are_signatures_of_signatures() {
    let task = |name: &str| Signature::new(name);
    let plain = |name: &str| json!({"task": name, "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false});
    assert_eq!(
        sent(Signature::chain([task("a"), task("b")])),
        json!({"task": "celery.chain", "args": [], "kwargs": {"tasks": [plain("a"), plain("b")]}, "options": {},
               "subtask_type": "chain", "immutable": false})
    );
    let group = json!({"task": "celery.group", "args": [], "kwargs": {"tasks": [plain("a"), plain("b")]}, "options": {},
                       "subtask_type": "group", "immutable": false});
    assert_eq!(sent(Signature::group([task("a"), task("b")])), group);
    assert_eq!(
        sent(Signature::chord([task("a"), task("b")], task("c"))),
        json!({"task": "celery.chord", "args": [], "kwargs": {"kwargs": {}, "header": group, "body": plain("c")},
               "options": {}, "subtask_type": "chord", "immutable": false})
    );
}

#[test]
fn values_without_json_are_noticed_when_sent() {
    let bad = || Signature::new("a").arg(BTreeMap::from([([1], 2)]));
    for signature in [
        bad(),
        Signature::new("a").args(7),
        Signature::chain([Signature::new("b"), bad()]),
        Signature::chord([bad()], Signature::new("b")),
        Signature::chord([Signature::new("b")], Signature::group([bad()])),
    ] {
        let test = TestContext::new("x");
        assert!(matches!(test.send(signature.clone()), Err(SendError::Invalid(_))), "{signature}");
        assert!(test.sent().is_empty());
    }
    let both = TestContext::new("x");
    assert!(both.send_many([Signature::new("a"), bad()]).is_err() && both.sent().is_empty(), "all or none");
}

#[test]
fn results_are_awaited_by_id() {
    let test = TestContext::new("x").with_result("sent-1", vec![1, 2]).with_failure(
        "sent-2",
        "ValueError",
        "no luck",
    );
    let ids: Vec<String> = test
        .send_many([Signature::new("a"), Signature::new("b"), Signature::new("c")])
        .unwrap()
        .into_iter()
        .map(|submitted| submitted.id)
        .collect();
    assert_eq!(ids, ["sent-1", "sent-2", "sent-3"]);
    let second = Duration::from_secs(1);
    assert_eq!(test.await_result::<Vec<u8>>("sent-1", second).unwrap(), [1, 2]);
    assert!(matches!(test.await_result::<String>("sent-1", second), Err(SendError::Decode(_))));
    let failed = TaskError::from(test.await_result::<u8>("sent-2", second).unwrap_err());
    assert_eq!((failed.exc_type(), failed.exc_args()), (Some("ValueError"), Some("[\"no luck\"]")));
    assert_eq!(test.await_result::<u8>("sent-3", second), Err(SendError::TimedOut));
    assert_eq!(test.slept(), second);
}

#[test]
fn what_keeps_a_task_from_sending_has_a_type() {
    for (error, wanted) in [
        (SendError::Denied("submit".to_owned()), "PermissionError: sending is not granted: submit"),
        (SendError::TooLarge("17 MiB".to_owned()), "ValueError: the message is too large: 17 MiB"),
        (
            SendError::Unavailable("refused".to_owned()),
            "ConnectionError: the broker or the result backend cannot be reached: refused",
        ),
        (SendError::TimedOut, "TimeoutError: no result within the time asked for"),
        (SendError::Other("?".to_owned()), "OperationalError: sending failed: ?"),
    ] {
        let test = TestContext::new("x").with_send_error(error);
        let found = TaskError::from(test.send(Signature::new("a")).unwrap_err());
        assert_eq!(found.to_string(), wanted);
    }
}
