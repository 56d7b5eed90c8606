//! What is stored of a task: the fields of its records, on every path (`celery-wire.md` §4.2, §4.5).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rwork_protocol::json::Value;
use rwork_protocol::{NewTask, Record, RevokeReason, State};
use rwork_sandbox::{Failure, Host, Outcome, Payload, Report, Retry, RetryLimit, Usage};

use crate::commit::TaskCommit;
use crate::host::Guest;
use crate::intake::{Intake, intake};
use crate::next;
use crate::sim::fixture::{Bench, ModelRequest, id, message};

fn report(outcome: Outcome) -> Report {
    Report { outcome, usage: Usage::default() }
}

fn failure() -> Failure {
    Failure {
        message: "no luck".to_owned(),
        exc_type: "ValueError".to_owned(),
        exc_module: Some("builtins".to_owned()),
        exc_args: Payload::json(&b"[\"no luck\"]"[..]),
        traceback: Some("Traceback (most recent call last):".to_owned()),
        retryable: true,
    }
}

fn success() -> Outcome {
    Outcome::Success(Payload::json(&b"5"[..]))
}

fn again() -> Outcome {
    let delay = Some(Duration::from_secs(9));
    let limit = RetryLimit::Inherit;
    Outcome::Retry(Retry { delay, limit, input: None, cause: Some(failure()), options: String::new() })
}

/// A member of a group that another task has sent, with an argument.
fn member(new: &mut NewTask) {
    new.args = Bytes::from_static(b"[1]");
    new.group = Some("group".to_owned());
    new.parent_id = Some(id("parent"));
}

fn ended(bench: &Bench, task: &str, outcome: Outcome) -> TaskCommit {
    let (request, held) = bench.request(task, member);
    let mut request = Arc::into_inner(request).unwrap();
    request.message.headers.stamped_headers = Some(Bytes::from_static(br#"["tenant"]"#));
    request.message.headers.stamps = Some(Bytes::from_static(br#"{"tenant": ["a"], "hidden": 1}"#));
    next::after(&Arc::new(request), Some(held), report(outcome))
}

fn first(commit: &TaskCommit) -> &Record {
    &commit.effects.records[0].record
}

/// The record as a Python client reads it.
fn wire(record: &Record) -> Value {
    Value::parse(&record.encode()).unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .map_or("absent".to_owned(), |value| String::from_utf8_lossy(&value.to_bytes()).into_owned())
}

#[tokio::test(start_paused = true)]
async fn every_record_names_its_group_and_parent_and_only_the_last_one_its_end() {
    let bench = Bench::new().await;
    let refused = Outcome::Reject { requeue: false, reason: "no".into() };
    for outcome in [success(), Outcome::Failed(failure()), again(), refused] {
        let commit = ended(&bench, "ok", outcome);
        let record = first(&commit);
        let state = &record.status;
        assert_eq!(record.group_id.as_deref(), Some("group"), "{state}");
        assert_eq!(record.parent_id.as_deref(), Some("parent"), "{state}");
        assert_eq!(record.date_done.is_some(), state.is_ready(), "{state}");
        assert!(record.children.is_some(), "{state}");
        assert_eq!(record.extended, None, "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_retry_is_celerys() {
    let bench = Bench::new().await;
    let commit = ended(&bench, "ok", again());
    let record = wire(first(&commit));
    assert_eq!(text(&record, "status"), "\"RETRY\"");
    assert_eq!(
        text(&record, "result"),
        r#"{"exc_type": "ValueError", "exc_message": ["no luck"], "exc_module": "builtins"}"#
    );
    assert_eq!(text(&record, "children"), r#"[[["ok", null], null]]"#);
    assert_eq!(text(&record, "date_done"), "null");
    let traceback = first(&commit).traceback.as_deref().unwrap();
    let expected =
        "Traceback (most recent call last):\ncelery.exceptions.Retry: Retry in 9s: ValueError('no luck')\n";
    assert_eq!(traceback, expected);
}

#[tokio::test(start_paused = true)]
async fn the_attempt_after_the_first_is_its_own_child() {
    let bench = Bench::new().await;
    let (request, held) = bench.request("ok", |new| new.parent_id = None);
    let commit = next::after(&request, Some(held), report(again()));
    assert_eq!(first(&commit).parent_id, None);
    let next = &commit.effects.follow_ups[0].message;
    let next = rwork_protocol::decode(next, &bench.parts.shared.config.decode_limits).unwrap();
    assert_eq!(next.headers.parent_id.as_ref().map(|id| id.as_str()), Some("ok"));
}

#[tokio::test(start_paused = true)]
async fn started_says_where_it_runs() {
    let bench = Bench::new().await;
    let (request, _) = bench.request("started", member);
    let record = wire(&request.started().unwrap());
    let pid = std::process::id();
    assert_eq!(text(&record, "result"), format!(r#"{{"pid": {pid}, "hostname": "worker1@model"}}"#));
    assert_eq!(
        [text(&record, "status"), text(&record, "children"), text(&record, "date_done")],
        ["\"STARTED\"", "[]", "null"]
    );
    assert_eq!(text(&record, "group_id"), "\"group\"");
    let (quiet, _) = bench.request("quiet", |_| {});
    assert_eq!(quiet.started(), None);
}

#[tokio::test(start_paused = true)]
async fn a_custom_state_has_the_children_so_far() {
    let mut bench = Bench::new().await;
    let (request, held) = bench.request("ok", member);
    request.sent.lock().unwrap().push(Bytes::from_static(br#"[["child", null], null]"#));
    let guest = Guest(Arc::clone(&request));
    let told = guest.progress("PROGRESS".to_owned(), Payload::json(&b"{\"done\": 1}"[..]));
    let (told, note) = tokio::join!(told, async {
        let mut note = bench.inbox.recv().await.unwrap();
        note.reply.take().unwrap().send(note.became.clone()).unwrap();
        note
    });
    told.unwrap();
    let record = wire(first(&note));
    assert_eq!(
        [text(&record, "status"), text(&record, "result"), text(&record, "children")],
        ["\"PROGRESS\"", r#"{"done": 1}"#, r#"[[["child", null], null]]"#]
    );
    // They are still there when it ends.
    let commit = next::after(&request, Some(held), report(success()));
    assert_eq!(text(&wire(first(&commit)), "children"), r#"[[["child", null], null]]"#);
}

#[tokio::test(start_paused = true)]
async fn extended_results_say_how_the_task_was_called() {
    let bench = Bench::with(|config| config.result_extended = true).await;
    for outcome in [success(), Outcome::Failed(failure()), again()] {
        let record = wire(first(&ended(&bench, "ok", outcome)));
        let fields =
            ["name", "args", "kwargs", "worker", "retries", "queue", "stamped_headers", "tenant", "hidden"];
        assert_eq!(
            fields.map(|field| text(&record, field)),
            [
                "\"ok\"",
                "[1]",
                "{}",
                "\"worker1@model\"",
                "0",
                "\"celery\"",
                "[\"tenant\"]",
                "[\"a\"]",
                "absent"
            ]
        );
    }
    // Where nothing was called, nothing is known.
    let stranger = bench.arrived(bench.delivery(message("unknown", bench.now(), |_| {})));
    let Intake::End(commit) = intake(&bench.parts, &bench.source, stranger) else {
        panic!("expected an end")
    };
    let record = wire(first(&commit));
    assert_eq!(["name", "args", "worker", "queue"].map(|field| text(&record, field)), ["null"; 4]);
    // A step that will never run would have been called like this.
    let step = r#"[{"task": "ok", "args": [7], "options": {"task_id": "next"}}]"#;
    let (request, held) = bench.request("ok", |new| new.embed.chain = Some(step.into()));
    let commit = next::after(&request, Some(held), report(Outcome::Failed(failure())));
    let record = wire(&commit.effects.records[1].record);
    let fields = ["task_id", "name", "args", "worker", "retries"];
    assert_eq!(fields.map(|field| text(&record, field)), ["\"next\"", "\"ok\"", "[7]", "null", "0"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_run_is_told_as_the_task_wishes() {
    let bench = Bench::new().await;
    let now = bench.now();
    let end = |task: &str, count: u32, expired: bool| {
        let past = rwork_protocol::Timestamp::from_micros(now.as_micros() - 1);
        let mut delivery = bench.delivery(message(task, now, |new| {
            member(new);
            new.expires = expired.then_some(past);
        }));
        delivery.delivery_count = count;
        match intake(&bench.parts, &bench.source, bench.arrived(delivery)) {
            Intake::End(commit) => *commit,
            _ => panic!("expected an end"),
        }
    };
    let revoked = end("ok", 1, true);
    let expected = rwork_protocol::Exception::revoked(RevokeReason::Expired);
    assert_eq!(first(&revoked).exception(), Some(expected));
    assert_eq!(first(&revoked).children.as_deref(), Some(&b"[]"[..]));
    let given_up = end("ok", 6, false);
    assert_eq!(
        (&first(&given_up).status, first(&given_up).group_id.as_deref()),
        (&State::Failure, Some("group"))
    );
    assert!(end("quiet", 6, false).effects.records.is_empty());
    assert!(end("quiet", 1, true).effects.records.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_sees_the_headers_that_were_sent_to_it() {
    let bench = Bench::new().await;
    let mut wire = message("ok", bench.now(), |_| {});
    let added = br#"{"redelivered": true, "mine": 1, "#;
    wire.headers = [&added[..], &wire.headers[1..]].concat().into();
    let mut delivery = bench.delivery(wire);
    delivery.redelivered = true;
    let Intake::Run(accepted) = intake(&bench.parts, &bench.source, bench.arrived(delivery)) else {
        panic!("expected a run")
    };
    let request: Arc<ModelRequest> = accepted.request;
    let headers = Value::parse(&request.wire_headers).unwrap();
    assert_eq!(
        (text(&headers, "mine"), text(&headers, "redelivered")),
        ("1".to_owned(), "absent".to_owned())
    );
}
