//! What intake lets through and what it ends, unhappy rows first.

use std::time::Duration;

use bytes::Bytes;
use rwork_broker::{Delivery, Disposition};
use rwork_protocol::{Message, Record, State};

use crate::commit::Fenced;
use crate::ending::Ending;
use crate::intake::{Arrived, Intake, intake};
use crate::sim::fixture::{Bench, id, message};

/// The disposition's word, the state of the stored record, and how many messages follow.
fn ended(bench: &Bench, arrived: Arrived) -> (String, Option<State>, usize) {
    let Intake::End(commit) = intake(&bench.parts, &bench.source, arrived) else { panic!("expected an end") };
    let Fenced::Settles(_, disposition) = &commit.fenced else { panic!("expected a settlement") };
    let word = match disposition {
        Disposition::Ack => "ack".to_owned(),
        Disposition::Requeue => "requeue".to_owned(),
        Disposition::Release => "release".to_owned(),
        Disposition::Interrupt => "interrupt".to_owned(),
        Disposition::Delay(_) => "delay".to_owned(),
        Disposition::DeadLetter(reason) => {
            assert_eq!(reason.worker, "worker1@model");
            let says_why =
                ["expected", "no plugin provides"].iter().any(|words| reason.detail.contains(words));
            assert!(says_why, "{reason:?}");
            reason.kind.clone()
        }
    };
    (
        word,
        commit.effects.records.first().map(|store| store.record.status.clone()),
        commit.effects.follow_ups.len(),
    )
}

fn with(bench: &Bench, message: Message, change: impl FnOnce(&mut Delivery)) -> Arrived {
    let mut delivery = bench.delivery(message);
    change(&mut delivery);
    bench.arrived(delivery)
}

#[tokio::test(start_paused = true)]
async fn what_cannot_run_ends_here() {
    let bench = Bench::new().await;
    let ok = || message("ok", bench.now(), |_| {});
    let broken = |change: fn(&mut Message)| {
        let mut message = ok();
        change(&mut message);
        with(&bench, message, |_| {})
    };
    let check = |arrived: Arrived, word: &str, state: Option<State>| {
        assert_eq!(ended(&bench, arrived), (word.to_owned(), state, 0));
    };
    check(broken(|message| message.body = Bytes::from_static(b"[[")), "undecodable", None);
    check(
        broken(|message| message.headers = Bytes::from_static(b"{\"task\": \"ok\"}")),
        "invalid-header",
        None,
    );
    check(broken(|message| message.headers = Bytes::from_static(b"{}")), "unknown-message", None);
    check(
        broken(|message| message.content_type = "application/x-python-serialize".into()),
        "content-refused",
        None,
    );
    check(broken(|message| message.body = vec![b' '; (16 << 20) + 1].into()), "too-large", None);
    check(
        with(&bench, message("unknown", bench.now(), |_| {}), |_| {}),
        "unknown-task",
        Some(State::Failure),
    );
    let unwanted = message("unknown", bench.now(), |new| new.ignore_result = Some(true));
    check(with(&bench, unwanted, |_| {}), "unknown-task", None);
    check(
        with(&bench, ok(), |delivery| delivery.delivery_count = 6),
        "too-many-deliveries",
        Some(State::Failure),
    );
    // Celery acks this one and stores nothing; here its client is told.
    check(broken(|message| message.body = Bytes::from_static(b"[[], 3, {}]")), "ack", Some(State::Failure));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_ends_here() {
    let bench = Bench::new().await;
    let now = bench.now();
    let past = rwork_protocol::Timestamp::from_micros(now.as_micros() - 1);
    let expired = message("ok", now, |new| new.expires = Some(past));
    assert_eq!(ended(&bench, with(&bench, expired, |_| {})), ("ack".to_owned(), Some(State::Revoked), 0));
    let far = message("ok", now, |new| new.eta = Some(now.plus(Duration::from_secs(60))));
    assert_eq!(ended(&bench, with(&bench, far, |_| {})), ("delay".to_owned(), None, 0));
    // An earlier success: only what follows may be missing.
    let step = r#"[{"task": "ok", "options": {"task_id": "next"}}]"#;
    let chain = message("ok", now, |new| new.embed.chain = Some(step.into()));
    let mut arrived = with(&bench, chain, |delivery| delivery.redelivered = true);
    arrived.success = Some(Record::new(id("ok"), State::Success, &b"1"[..]));
    assert_eq!(ended(&bench, arrived), ("ack".to_owned(), None, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_due_goes_back_in_one_step_until_it_is() {
    let bench = Bench::new().await;
    let due = bench.now().plus(Duration::from_secs(60));
    let later = message("ok", bench.now(), |new| new.eta = Some(due));
    let Intake::End(commit) = intake(&bench.parts, &bench.source, with(&bench, later, |_| {})) else {
        panic!("expected an end")
    };
    assert_eq!(commit.ending, Some(Ending::Parked { until: due }));
    assert!(matches!(commit.fenced, Fenced::Settles(_, Disposition::Delay(until)) if until == due));
    assert!(commit.effects.follow_ups.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_rest_runs_now_or_soon() {
    let bench = Bench::new().await;
    let now = bench.now();
    let eta = |wait: Duration| message("ok", now, |new| new.eta = Some(now.plus(wait)));
    let runs = |message: Message| match intake(&bench.parts, &bench.source, with(&bench, message, |_| {})) {
        Intake::Run(_) => Some(Duration::ZERO),
        Intake::Wait(_, wait) => Some(wait),
        Intake::End(_) => None,
    };
    assert_eq!(runs(message("ok", now, |_| {})), Some(Duration::ZERO));
    assert_eq!(runs(eta(Duration::ZERO)), Some(Duration::ZERO));
    assert_eq!(runs(message("ok", now, |new| new.expires = Some(now))), Some(Duration::ZERO));
    assert_eq!(runs(eta(Duration::from_millis(900))), Some(Duration::from_millis(900)));
    assert_eq!(runs(eta(Duration::from_millis(1_100))), None);
}
