//! One row per outcome: what is stored, what follows, what the broker is told.

use std::time::Duration;

use bytes::Bytes;
use rwork_broker::Disposition;
use rwork_protocol::State;
use rwork_sandbox::{Failure, Input, KillReason, Outcome, Payload, Report, Retry, RetryLimit, Trap, Usage};

use crate::commit::{Fenced, TaskCommit};
use crate::next;
use crate::sim::fixture::{Bench, ModelRequest};

fn report(outcome: Outcome) -> Report {
    Report { outcome, usage: Usage::default() }
}

fn failure(exc_type: &str) -> Failure {
    Failure {
        exc_type: exc_type.to_owned(),
        exc_module: Some("builtins".to_owned()),
        exc_args: Payload::json(&b"[\"bad\", 7]"[..]),
        message: "bad".to_owned(),
        traceback: Some("somewhere".to_owned()),
        retryable: true,
    }
}

fn retry(limit: RetryLimit, cause: Option<Failure>) -> Retry {
    Retry { delay: Some(Duration::from_secs(9)), limit, input: None, cause, options: String::new() }
}

fn told(commit: &TaskCommit) -> String {
    let Fenced::Settles(_, disposition) = &commit.fenced else { return "nothing".to_owned() };
    match disposition {
        Disposition::Ack => "ack".to_owned(),
        Disposition::Requeue => "requeue".to_owned(),
        Disposition::Release => "release".to_owned(),
        Disposition::Interrupt => "interrupt".to_owned(),
        Disposition::Delay(_) => "delay".to_owned(),
        Disposition::DeadLetter(reason) => format!("dead: {}", reason.kind),
    }
}

/// The stored exception as Python shows it.
fn raised(commit: &TaskCommit) -> String {
    commit.effects.records[0].record.exception().unwrap().to_string()
}

#[tokio::test(start_paused = true)]
async fn every_outcome_ends_in_its_own_way() {
    let bench = Bench::new().await;
    let json = |text: &'static str| Payload::json(text.as_bytes());
    let trap = || Trap {
        message: "call stack exhausted".into(),
        backtrace: Some("0: f".into()),
        stderr: String::new(),
    };
    let hard = Duration::from_secs(2);
    let reject = |requeue| Outcome::Reject { requeue, reason: "no".into() };
    let other = Payload { content_type: "application/x-msgpack".into(), data: Bytes::new() };
    let rows: Vec<(Outcome, &str, Option<State>, usize)> = vec![
        (Outcome::HostFault("pool".into()), "requeue", None, 0),
        (Outcome::Killed(KillReason::Shutdown), "interrupt", None, 0),
        (reject(true), "requeue", None, 0),
        (reject(false), "dead: rejected", Some(State::Failure), 0),
        (Outcome::Killed(KillReason::Revoked), "ack", Some(State::Revoked), 0),
        (Outcome::Trap(trap()), "ack", Some(State::Failure), 0),
        (Outcome::MemoryLimit { cap: 1, wanted: 2 }, "ack", Some(State::Failure), 0),
        (Outcome::HardTimeLimit { limit: hard, backtrace: None }, "ack", Some(State::Failure), 0),
        (Outcome::SoftTimeLimit { limit: hard, failure: failure("X") }, "ack", Some(State::Failure), 0),
        (Outcome::ResultTooLarge { limit: 1, size: 2 }, "ack", Some(State::Failure), 0),
        (Outcome::Success(json("{not json")), "ack", Some(State::Failure), 0),
        (Outcome::Success(other), "ack", Some(State::Failure), 0),
        (Outcome::Success(Payload::json(vec![b'1'; 2 << 20])), "ack", Some(State::Failure), 0),
        (Outcome::Failed(failure("ValueError")), "ack", Some(State::Failure), 0),
        (Outcome::Retry(retry(RetryLimit::AtMost(0), None)), "ack", Some(State::Failure), 0),
        (Outcome::Retry(retry(RetryLimit::Inherit, None)), "ack", Some(State::Retry), 1),
        (Outcome::Replace(json(r#"{"task": "ok"}"#)), "ack", None, 1),
        (Outcome::Replace(json(r#"{"task": "fail"}"#)), "ack", Some(State::Failure), 0),
        (Outcome::Replace(json("[]")), "ack", Some(State::Failure), 0),
        (Outcome::Ignore, "ack", None, 0),
        (Outcome::Success(json("5")), "ack", Some(State::Success), 0),
    ];
    for (outcome, word, state, follow_ups) in rows {
        let what = format!("{outcome:?}").chars().take(80).collect::<String>();
        let (request, held) = bench.request("ok", |_| {});
        let commit = next::after(&request, Some(held), report(outcome));
        let stored = commit.effects.records.first().map(|store| store.record.status.clone());
        assert_eq!(
            (told(&commit).as_str(), stored, commit.effects.follow_ups.len()),
            (word, state, follow_ups),
            "{what}"
        );
        for store in &commit.effects.records {
            assert_eq!(store.record.component.as_deref(), Some("sha256:1"), "{what}");
            assert_eq!(store.record.date_done.is_some(), store.record.status.is_ready(), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_raise_the_exceptions_they_know() {
    let bench = Bench::new().await;
    let check = |outcome: Outcome, expect: &str| {
        let (request, held) = bench.request("ok", |_| {});
        assert_eq!(raised(&next::after(&request, Some(held), report(outcome))), expect);
    };
    let trap =
        Trap { message: "panicked at src/lib.rs:3:5: boom".into(), backtrace: None, stderr: String::new() };
    check(
        Outcome::Trap(trap),
        "WorkerLostError('Worker exited prematurely: panicked at src/lib.rs:3:5: boom')",
    );
    let limit = Duration::from_millis(1_500);
    check(Outcome::HardTimeLimit { limit, backtrace: None }, "TimeLimitExceeded(1.5)");
    check(Outcome::SoftTimeLimit { limit, failure: failure("Anything") }, "SoftTimeLimitExceeded()");
    check(Outcome::Failed(failure("ValueError")), "ValueError('bad', 7)");
    let unreadable = Failure { exc_args: Payload::json(&b"nonsense"[..]), ..failure("ValueError") };
    check(Outcome::Failed(unreadable), "ValueError('bad')");
    check(Outcome::Retry(retry(RetryLimit::AtMost(0), Some(failure("KeyError")))), "KeyError('bad', 7)");
    check(
        Outcome::Retry(retry(RetryLimit::AtMost(0), None)),
        "MaxRetriesExceededError('Can\\'t retry ok[ok] args:() kwargs:{}')",
    );
    check(Outcome::Killed(KillReason::Revoked), "TaskRevokedError('terminated')");
}

#[tokio::test(start_paused = true)]
async fn after_an_early_ack_nothing_can_go_back_so_somebody_is_told() {
    let bench = Bench::new().await;
    for outcome in [
        Outcome::HostFault("pool".into()),
        Outcome::Killed(KillReason::Shutdown),
        Outcome::Reject { requeue: true, reason: "no".into() },
    ] {
        let what = format!("{outcome:?}");
        let (request, _) = bench.request("early", |_| {});
        let commit = next::after(&request, None, report(outcome));
        assert_eq!(told(&commit), "nothing", "{what}");
        assert_eq!(commit.effects.records[0].record.status, State::Failure, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_keeps_its_id_and_waits_at_the_broker() {
    let bench = Bench::new().await;
    let (request, held) = bench.request("ok", |_| {});
    let commit = next::after(&request, Some(held), report(Outcome::Retry(retry(RetryLimit::Inherit, None))));
    let publish = &commit.effects.follow_ups[0];
    let next = rwork_protocol::decode(&publish.message, &rwork_protocol::DecodeLimits::default()).unwrap();
    assert_eq!((next.headers.id.as_str(), next.headers.retries), ("ok", 1));
    assert_eq!(publish.not_before, Some(bench.now().plus(Duration::from_secs(9))));
    assert_eq!(publish.route.routing_key, "celery");
    let record = &commit.effects.records[0].record;
    assert_eq!(record.result, &b"null"[..]);
    assert_eq!(record.children.as_deref(), Some(&br#"[[["ok", null], null]]"#[..]));
    // A short delay is not worth the broker's while.
    let (request, held) = bench.request("ok", |_| {});
    let wish = Retry { delay: Some(Duration::from_millis(300)), ..retry(RetryLimit::Inherit, None) };
    let commit = next::after(&request, Some(held), report(Outcome::Retry(wish)));
    assert_eq!(commit.effects.follow_ups[0].not_before, None);
}

#[tokio::test(start_paused = true)]
async fn a_retry_may_change_its_arguments_and_must_make_sense() {
    let bench = Bench::new().await;
    let attempt = |input: Input| {
        let (request, held) = bench.request("ok", |_| {});
        let wish = Retry { input: Some(input), ..retry(RetryLimit::Unlimited, None) };
        next::after(&request, Some(held), report(Outcome::Retry(wish)))
    };
    let call = |args: &'static [u8]| Input::Call {
        content_type: "application/json".into(),
        args: Bytes::from_static(args),
        kwargs: Bytes::from_static(b"{}"),
    };
    let good = attempt(call(b"[1, 2]"));
    assert!(good.effects.follow_ups[0].message.body.starts_with(b"[[1, 2], "));
    for bad in [call(b"{}"), call(b"[1"), Input::Raw(Payload::json(&b"1"[..]))] {
        let commit = attempt(bad);
        assert!(commit.effects.follow_ups.is_empty());
        assert!(
            raised(&commit).starts_with("FollowUpError('expected the input of a retry"),
            "{}",
            raised(&commit)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn automatic_retries_end_with_the_error_itself() {
    let bench = Bench::new().await;
    let attempt = |retries: u32, retryable: bool, exc_type: &str| {
        let (request, held) = bench.request("autoretry", |_| {});
        let mut request = std::sync::Arc::into_inner(request).unwrap();
        request.message.headers.retries = retries;
        let failure = Failure { retryable, ..failure(exc_type) };
        let commit = next::after(&std::sync::Arc::new(request), Some(held), report(Outcome::Failed(failure)));
        (commit.effects.records[0].record.status.clone(), raised(&commit))
    };
    assert_eq!(attempt(2, true, "ValueError"), (State::Failure, "ValueError('bad', 7)".to_owned()));
    assert_eq!(attempt(0, false, "ValueError").0, State::Failure);
    assert_eq!(attempt(0, true, "KeyError").0, State::Failure);
    assert_eq!(attempt(0, true, "ValueError"), (State::Retry, "ValueError('bad', 7)".to_owned()));
    assert_eq!(attempt(1, true, "ValueError").0, State::Retry);
}

#[tokio::test(start_paused = true)]
async fn a_chain_goes_on_or_fails_as_a_whole() {
    let bench = Bench::new().await;
    let chain = r#"[{"task": "ok", "options": {"task_id": "last"}}, {"task": "ok", "options": {"task_id": "second"}}]"#;
    let run = |outcome: Outcome| {
        let (request, held) = bench.request("ok", |new| new.embed.chain = Some(chain.into()));
        next::after(&request, Some(held), report(outcome))
    };
    let good = run(Outcome::Success(Payload::json(&b"5"[..])));
    assert_eq!(good.effects.follow_ups.len(), 1);
    assert!(good.effects.records[0].record.children.as_ref().unwrap().starts_with(b"[[[\"second\""));
    let bad = run(Outcome::Failed(failure("ValueError")));
    let stored: Vec<_> =
        bad.effects.records.iter().map(|store| store.record.task_id.as_str().to_owned()).collect();
    assert_eq!((stored[0].as_str(), stored.len(), bad.effects.follow_ups.len()), ("ok", 3, 0));
    assert!(bad.effects.records.iter().all(|store| store.record.status == State::Failure));
}

#[tokio::test(start_paused = true)]
async fn ignored_results_are_not_stored() {
    let bench = Bench::new().await;
    for outcome in [Outcome::Success(Payload::json(&b"5"[..])), Outcome::Failed(failure("ValueError"))] {
        let (request, held) = bench.request("quiet", |_| {});
        assert!(next::after(&request, Some(held), report(outcome.clone())).effects.records.is_empty());
        // The message's own wish goes before the task's.
        let (request, held) = bench.request("quiet", |new| new.ignore_result = Some(false));
        assert_eq!(next::after(&request, Some(held), report(outcome)).effects.records.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_guest_sent_is_among_its_children() {
    let bench = Bench::new().await;
    let (request, held) = bench.request("ok", |_| {});
    let request: std::sync::Arc<ModelRequest> = request;
    request.sent.lock().unwrap().push(Bytes::from_static(br#"[["child", null], null]"#));
    let commit = next::after(&request, Some(held), report(Outcome::Success(Payload::json(&b"5"[..]))));
    assert_eq!(
        commit.effects.records[0].record.children.as_deref(),
        Some(&br#"[[["child", null], null]]"#[..])
    );
}
