//! Who computes when: slots by themselves, then with guests.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::guest::Guest;
use super::{Bench, success};
use crate::slots::{Slot, Slots};
use crate::{Limits, Outcome};

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn admit(slots: &Arc<Slots>) -> Slot {
    slots.try_admit().expect("a free slot")
}

fn on_cpu(slot: &mut Slot) -> bool {
    slot.poll_cpu(&mut cx()).is_ready()
}

#[test]
fn as_many_start_as_there_are_cpu_slots() {
    let slots = Slots::new(2, 10);
    let (mut first, _second) = (admit(&slots), admit(&slots));
    assert!(slots.try_admit().is_none());
    assert!(on_cpu(&mut first));
    // One that waits makes room for another.
    first.park();
    let mut third = admit(&slots);
    assert!(on_cpu(&mut third));
    assert_eq!(slots.used(), (3, 1));
}

#[test]
fn in_flight_is_bounded_while_all_wait() {
    let slots = Slots::new(1, 2);
    let mut held: Vec<Slot> = (0..2)
        .map(|_| {
            let mut slot = admit(&slots);
            assert!(on_cpu(&mut slot));
            slot.park();
            slot
        })
        .collect();
    assert!(slots.try_admit().is_none());
    held.pop();
    assert!(slots.try_admit().is_some());
}

#[test]
fn one_that_waited_goes_on_before_a_new_one_starts() {
    let slots = Slots::new(1, 10);
    let (mut waited, mut cx) = (admit(&slots), cx());
    assert!(on_cpu(&mut waited));
    waited.park();
    let mut computing = admit(&slots);
    assert!(on_cpu(&mut computing));
    let mut admission = pin!(slots.admit());
    assert!(admission.as_mut().poll(&mut cx).is_pending());
    assert!(!on_cpu(&mut waited));
    drop(computing);
    assert!(on_cpu(&mut waited));
    assert!(admission.as_mut().poll(&mut cx).is_pending());
    drop(waited);
    assert!(admission.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a_computing_guest_keeps_its_slot_unless_one_that_waited_wants_it() {
    let slots = Slots::new(1, 10);
    let mut waited = admit(&slots);
    assert!(on_cpu(&mut waited));
    waited.park();
    let mut computing = admit(&slots);
    assert!(on_cpu(&mut computing));
    computing.hand_over();
    assert!(computing.on_cpu(), "no one else wants it");
    assert!(!on_cpu(&mut waited));
    computing.hand_over();
    assert!(!computing.on_cpu());
    assert!(on_cpu(&mut waited));
    assert!(!on_cpu(&mut computing), "now it waits for its turn");
    waited.hand_over();
    assert!(on_cpu(&mut computing));
}

#[test]
fn short_invocations_are_admitted_ahead_until_one_computes_for_a_tick() {
    let slots = Slots::new(1, 100);
    for _ in 0..4 {
        let mut short = admit(&slots);
        assert!(on_cpu(&mut short));
    }
    // One on the CPU, four ahead.
    let mut held: Vec<Slot> = (0..5).map(|_| admit(&slots)).collect();
    assert!(slots.try_admit().is_none());
    let first = held.first_mut().unwrap();
    assert!(on_cpu(first));
    first.hand_over();
    held.pop();
    assert!(slots.try_admit().is_none(), "the window is closed");
}

#[test]
fn the_ticker_sleeps_only_while_nothing_runs() {
    let slots = Slots::new(1, 1);
    let mut slot = admit(&slots);
    assert!(slots.park_ticker() && slots.is_ticker_parked());
    assert!(on_cpu(&mut slot));
    assert!(!slots.is_ticker_parked() && !slots.park_ticker());
    slot.park();
    assert!(slots.park_ticker());
    slots.close();
    assert!(!slots.is_ticker_parked() && !slots.park_ticker() && slots.is_closed());
}

#[test]
fn dropped_waiters_leave_nothing_behind() {
    let slots = Slots::new(1, 3);
    let mut cx = cx();
    let mut first = admit(&slots);
    assert!(on_cpu(&mut first));
    // Dropped while in the queue, and dropped after the grant but before it was seen.
    for granted in [false, true] {
        let mut admission = Box::pin(slots.admit());
        assert!(admission.as_mut().poll(&mut cx).is_pending());
        if granted {
            first.park();
            drop(admission);
            assert!(on_cpu(&mut first));
        } else {
            drop(admission);
        }
        assert_eq!(slots.used(), (1, 1));
    }
    first.park();
    let mut second = admit(&slots);
    assert!(on_cpu(&mut second));
    assert!(!on_cpu(&mut first));
    drop(first);
    drop(second);
    assert_eq!(slots.used(), (0, 0));
    assert!(matches!(pin!(slots.admit()).poll(&mut cx), Poll::Ready(_)));
}

#[test]
fn a_spinner_does_not_keep_a_neighbour_from_its_soft_limit() {
    // One guest thread. The neighbour sleeps past its soft limit, and is told; the spinner never stops.
    let bench = Bench::new(1);
    let sleeper =
        bench.prepare(&Guest::new("(call $sleep (i64.const 3600000) (i32.const 4096)) (call $soft)").import(
            "rwork:task/limits@0.1.0",
            "sleep",
            "(param i64 i32)",
        ));
    let spinner = bench.prepare(&Guest::new("(loop (br 0)) unreachable"));
    let soft = Limits { soft_time: Some(Duration::from_millis(100)), hard_time: None, ..Limits::default() };
    let endless = Limits { hard_time: None, ..Limits::default() };
    bench.io.block_on(async {
        let slot = bench.sandbox.admit().await;
        let mut neighbour = bench.sandbox.execute(slot, sleeper, bench.invocation(soft));
        // Admitted once the neighbour sleeps.
        let slot = bench.sandbox.admit().await;
        let mut spinning = bench.sandbox.execute(slot, spinner, bench.invocation(endless));
        tokio::select! {
            report = &mut neighbour => {
                assert!(matches!(report.outcome, Outcome::SoftTimeLimit { .. }), "{:?}", report.outcome);
            }
            report = &mut spinning => panic!("the spinner ended: {:?}", report.outcome),
        }
        drop(spinning);
    });
    bench.wait_empty();
}

#[test]
fn more_than_the_pool_holds_are_run_in_turn() {
    let bench = Bench::new(2);
    let prepared = bench.prepare(&Guest::new("call $ok"));
    let reports = bench.io.block_on(async {
        let mut running = Vec::new();
        for _ in 0..500 {
            let slot = bench.sandbox.admit().await;
            let invocation = bench.invocation(Limits::default());
            running.push(tokio::spawn(bench.sandbox.execute(slot, Arc::clone(&prepared), invocation)));
        }
        let mut reports = Vec::new();
        for report in running {
            reports.push(report.await.unwrap());
        }
        reports
    });
    assert!(reports.iter().all(|report| report.outcome == success("null")));
    bench.wait_empty();
}
