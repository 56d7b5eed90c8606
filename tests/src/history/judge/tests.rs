//! The checker catches what it is there for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use rwork_protocol::{Record, TaskId, Timestamp};

use super::*;
use crate::history::{Beside, Decision, Kill, Loss, Outage, Stop, Word};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// One task, accepted, run by `a` at 100 and stored at 110.
fn plain() -> History {
    let mut history = History::default();
    history.accepted.insert(1, TaskId::new("one").unwrap());
    history.lines = vec![line(Word::Start, "a", 100), line(Word::End, "a", 110)];
    history.receipts = vec![receipt("a", 90)];
    store(&mut history, 110);
    history
}

/// The same, killed at 105 and run again by `b` at 5,000.
fn killed() -> History {
    let mut history = plain();
    history.kills = vec![Kill { node: "a".to_owned(), at: at(105) }];
    history.lines =
        vec![line(Word::Start, "a", 100), line(Word::Start, "b", 5_000), line(Word::End, "b", 5_010)];
    history.receipts.push(receipt("b", 4_990));
    store(&mut history, 5_011);
    history
}

fn line(word: Word, node: &str, millis: i64) -> Line {
    Line { number: 1, word, node: node.to_owned(), at: at(millis) }
}

fn receipt(node: &str, millis: i64) -> Receipt {
    Receipt { number: 1, node: node.to_owned(), at: at(millis), deliveries: 1 }
}

fn store(history: &mut History, millis: i64) {
    let mut record = Record::new(TaskId::new("one").unwrap(), State::Success, "1");
    record.date_done = Some(at(millis));
    history.records.insert(1, record);
}

/// What a change of a history leads to, in words; empty: nothing.
fn faults(mut history: History, change: impl FnOnce(&mut History)) -> String {
    change(&mut history);
    judge(&history).faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_must_not_happen_is_found() {
    let check = |history: History, change: fn(&mut History), expected: &str| {
        let found = faults(history, change);
        assert!(found.contains(expected), "expected `{expected}`, found `{found}`");
    };
    check(plain(), |h| h.records.clear(), "task 1 was accepted and lost");
    check(plain(), |h| h.accepted.clear(), "task 1 ran and was never accepted");
    check(plain(), |h| h.lines.clear(), "task 1 has a result and never ran");
    check(plain(), |h| h.left = 2, "2 message(s) are left");
    check(
        plain(),
        |h| _ = h.dead.insert(1, "poisonous".to_owned()),
        "task 1 ended as dead letter: poisonous",
    );
    check(plain(), |h| h.records.get_mut(&1).unwrap().result = "2".into(), "task 1 ended as SUCCESS: 2");
    check(plain(), |h| h.records.get_mut(&1).unwrap().status = State::Failure, "task 1 ended as FAILURE");
    check(plain(), |h| h.lines.push(line(Word::Start, "a", 120)), "`a`, which ran it first, was not killed");
    check(killed(), |h| h.kills.clear(), "`a`, which ran it first, was not killed");
    check(
        killed(),
        |h| h.kills = vec![Kill { node: "a".to_owned(), at: at(6_000) }],
        "`b` ran it while `a` still lived",
    );
    check(
        killed(),
        |h| h.kills = vec![Kill { node: "a".to_owned(), at: at(50) }],
        "`a` ran it after it was killed",
    );
    check(killed(), |h| store(h, 104), "`b` ran it although the result of `a` was stored");
}

#[test]
fn what_may_happen_is_counted() {
    assert_eq!(faults(plain(), |_| {}), "");
    let verdict = judge(&killed());
    verdict.clean().unwrap();
    assert_eq!(
        (verdict.accepted, verdict.ran_again, verdict.ended_unstored, verdict.redelivered),
        (1, 1, 0, 1)
    );
    assert_eq!(verdict.redelivery_max, Duration::from_millis(4_885));
    assert_eq!(verdict.restart_max, Duration::from_millis(4_895));

    let mut ended = killed();
    ended.lines.insert(1, line(Word::End, "a", 104));
    assert_eq!(judge(&ended).ended_unstored, 1);
}

#[test]
fn a_message_that_was_held_and_never_begun_is_timed_too() {
    let mut history = killed();
    history.lines.remove(0);
    let verdict = judge(&history);
    assert_eq!((verdict.ran_again, verdict.redelivered), (0, 1));
    assert_eq!(verdict.restart_max, Duration::from_millis(4_895));
}

fn away(from: i64, to: i64) -> Outage {
    Outage { from: at(from), to: at(to) }
}

/// [`killed`], but it was the server that was killed; `b` is Celery's.
fn cut() -> History {
    let mut history = killed();
    history.kills.clear();
    // Its receipt is the start of its line: it logs elsewhere.
    history.receipts.pop();
    let celery = ["b".to_owned()].into();
    let outages = vec![away(105, 110)];
    history.beside = Some(Beside { outages, celery, held_by_connections: true, ..Beside::default() });
    history
}

#[test]
fn a_killed_server_excuses_what_it_met_and_nothing_else() {
    assert_eq!(faults(cut(), |_| {}), "");
    assert_eq!(judge(&cut()).taken_from_the_living, 1);
    let met = |from, to| faults(cut(), |h| h.beside.as_mut().unwrap().outages = vec![away(from, to)]);
    // It began while the server was away, which its worker had not noticed yet.
    assert_eq!(met(90, 102), "");
    for missed in [met(90, 99), met(5_001, 5_010)] {
        assert!(missed.contains("was not killed"), "{missed}");
    }
}

#[test]
fn a_killed_server_excuses_no_worker_that_outlives_its_connections() {
    let found = |first: &str| {
        faults(cut(), |h| {
            h.beside.as_mut().unwrap().held_by_connections = false;
            h.lines[0].node = first.to_owned();
        })
    };
    assert!(found("a").contains("`a`, which ran it first, was not killed"));
    assert_eq!(found("b"), "", "one of Celery's does not");
}

#[test]
fn a_connection_that_its_own_worker_lost_excuses_what_it_held() {
    let lost = |node: &str, millis| {
        faults(killed(), |h| {
            h.kills.clear();
            h.losses = vec![Loss { node: node.to_owned(), at: at(millis) }];
        })
    };
    assert_eq!(lost("a", 4_000), "");
    for other in [lost("b", 4_000), lost("a", 99), lost("a", 20_000)] {
        assert!(other.contains("was not killed"), "{other}");
    }
}

#[test]
fn a_stopped_worker_is_taken_for_a_dead_one_while_it_stood_still() {
    let stopped = |from, to| {
        faults(killed(), |h| {
            h.kills.clear();
            h.stops = vec![Stop { node: "a".to_owned(), from: at(from), to: at(to) }];
        })
    };
    assert_eq!(stopped(90, 4_000), "");
    assert!(stopped(5_001, 9_000).contains("was not killed"));
    assert!(stopped(60, 95).contains("was not killed"), "it went on before it began");
}

#[test]
fn a_worker_that_is_stopped_between_its_decision_and_the_start_is_excused() {
    let stopped = |node: &str, (from, to), decided| {
        faults(killed(), |h| {
            h.kills.clear();
            h.stops = vec![Stop { node: node.to_owned(), from: at(from), to: at(to) }];
            h.decisions = vec![Decision { number: 1, node: node.to_owned(), at: at(decided) }];
        })
    };
    assert_eq!(stopped("b", (95, 4_900), 94), "", "`b` is late");
    assert_eq!(stopped("a", (95, 99), 94), "", "`a` is late, and the other one has it already");
    assert_eq!(stopped("a", (95, 99), 96), "", "the stop is noted just before it is made");
    for (node, stop, decided) in [("b", (95, 4_900), 4_901), ("a", (80, 90), 91)] {
        let found = stopped(node, stop, decided);
        assert!(found.contains("was not killed"), "`{node}` had gone on when it decided: {found}");
    }
}

#[test]
fn a_worker_decides_on_a_retry_by_the_id_of_the_attempt_before() {
    let retried = |number| {
        faults(killed(), |h| {
            h.kills.clear();
            h.lines.iter_mut().for_each(|line| line.number = 2);
            h.lines.splice(0..0, [line(Word::Start, "a", 50), line(Word::End, "a", 60)]);
            h.follows.insert(2, 1);
            h.records.extend(h.records.get(&1).cloned().map(|record| (2, record)));
            h.stops = vec![Stop { node: "b".to_owned(), from: at(95), to: at(4_900) }];
            h.decisions = vec![Decision { number, node: "b".to_owned(), at: at(94) }];
        })
    };
    assert_eq!(retried(1), "");
    assert!(retried(3).contains("was not killed"));
}

#[test]
fn what_follows_is_called_by_its_name_when_it_doubles() {
    let follows = |h: &mut History| {
        h.kills.clear();
        h.follows.insert(1, 0);
    };
    assert!(faults(killed(), follows).starts_with("task 1 follows another one and ran twice"));
}

/// [`killed`] without a kill, behind another task that `first` ran at 50 and, unless it is `None`, again at that time.
fn behind(first: &str, again: Option<i64>) -> String {
    faults(killed(), |h| {
        h.kills.clear();
        h.beside = Some(Beside { celery: ["celery".to_owned()].into(), ..Beside::default() });
        // There is one between them, so that it isn't the nearest alone that counts.
        h.follows = [(1, 7), (7, 8)].into();
        h.kills.push(Kill { node: first.to_owned(), at: at(60) });
        h.unsure.insert(8);
        let before = |line: Line| Line { number: 8, ..line };
        h.lines.push(before(line(Word::Start, first, 50)));
        h.lines.extend(again.map(|at| before(line(Word::Start, "c", at))));
    })
}

#[test]
fn what_celery_publishes_and_does_not_acknowledge_may_double_behind_it() {
    assert_eq!(behind("celery", Some(4_000)), "");
    for (first, again) in [("celery", None), ("celery", Some(6_000)), ("d", Some(4_000))] {
        let found = behind(first, again);
        assert!(found.starts_with("task 1 follows another one and ran twice"), "{first} {again:?}: {found}");
    }
}

#[test]
fn a_lost_connection_of_celerys_own_is_told_apart() {
    let failed = |node: &str, class: &str| {
        faults(cut(), |h| {
            let record = h.records.get_mut(&1).unwrap();
            (record.status, record.result) = (State::Failure, format!("{{\"exc_type\":\"{class}\"}}").into());
            h.lines[1].node = node.to_owned();
        })
    };
    assert_eq!(failed("b", "ConnectionError"), "");
    assert!(failed("a", "ConnectionError").contains("ended as FAILURE"));
    assert!(failed("b", "ValueError").contains("ended as FAILURE"));
}

#[test]
fn a_stored_result_is_excused_until_its_ack_was_due() {
    let stored = |millis, outage| {
        faults(cut(), |h| {
            store(h, millis);
            h.beside.as_mut().unwrap().outages = vec![away(outage, outage)];
        })
    };
    assert_eq!(stored(104, 105), "");
    let late = stored(104, 104 + ACK_MS + 1);
    assert!(late.contains("although the result of `a` was stored"), "{late}");
}

#[test]
fn a_stopped_workers_late_success_is_excused_and_no_other_ones() {
    // `a` was stopped before its success was stored, `b` was killed, `c` ran it last.
    let ran_by_three = |stopped: &str| {
        faults(killed(), |h| {
            let stop = |node: &str| Stop { node: node.to_owned(), from: at(104), to: at(4_000) };
            h.kills = vec![Kill { node: "b".to_owned(), at: at(5_005) }];
            h.kills.extend((stopped != "a").then(|| Kill { node: "a".to_owned(), at: at(4_500) }));
            h.stops = vec![stop(stopped)];
            h.lines.push(line(Word::Start, "c", 6_000));
            h.beside = Some(Beside::default());
            store(h, 104);
        })
    };
    assert_eq!(ran_by_three("a"), "");
    let found = ran_by_three("d");
    assert_eq!(found, "task 1 ran twice: `c` ran it although the result of `a` was stored");
}

#[test]
fn starts_are_judged_by_their_times() {
    let mut stopped = killed();
    stopped.kills.clear();
    stopped.stops = vec![Stop { node: "a".to_owned(), from: at(101), to: at(5_100) }];
    assert_eq!(faults(stopped.clone(), |_| {}), "");
    assert_eq!(faults(stopped, |h| h.lines.swap(0, 1)), "", "`a` wrote its line when it went on");
}

#[test]
fn only_what_is_proved_to_be_kombus_loss_is_excused() {
    let lost = |dropped: &[u64]| {
        faults(cut(), |h| {
            h.records.clear();
            h.lines.clear();
            h.beside.as_mut().unwrap().dropped_by_kombu = dropped.iter().copied().collect();
        })
    };
    assert_eq!(lost(&[1]), "");
    assert!(lost(&[2]).contains("task 1 was accepted and lost"));
}

#[test]
fn what_nobody_answered_to_may_run_or_not() {
    let unsure = |h: &mut History| {
        h.accepted.clear();
        h.records.clear();
        h.unsure.insert(1);
    };
    assert_eq!(faults(killed(), unsure), "");
    assert_eq!(faults(killed(), |h| (unsure(h), h.lines.clear()).1), "");
}
