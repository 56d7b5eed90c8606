//! Limits hold, whatever the guest does.

use std::sync::Arc;
use std::time::Duration;

use super::guest::Guest;
use super::{Bench, hard, success};
use crate::{KillReason, Limits, Outcome, StopReason};

const MIB: usize = 1 << 20;
const SPIN: &str = "(loop (br 0)) unreachable";

fn sleeper(run: &str) -> Guest {
    Guest::new(run).import("rwork:task/limits@0.1.0", "sleep", "(param i64 i32)")
}

fn soft_and_hard(soft: u64, hard_ms: u64) -> Limits {
    Limits { soft_time: Some(Duration::from_millis(soft)), ..hard(hard_ms) }
}

#[test]
fn a_busy_loop_ends_at_the_hard_limit_with_a_backtrace() {
    let guest = Guest::new("(call $spin)").items("(func $spin (result i32) (loop (br 0)) unreachable)");
    let Outcome::HardTimeLimit { limit, backtrace } = Bench::new(1).outcome(&guest, soft_and_hard(10, 50))
    else {
        panic!("expected the hard limit")
    };
    assert_eq!(limit, Duration::from_millis(50));
    assert_eq!(backtrace.as_deref(), Some("   0: spin"));
}

#[test]
fn a_start_function_that_spins_ends_at_the_hard_limit() {
    let guest = Guest::new("call $ok").items("(func $init (loop (br 0))) (start $init)");
    let outcome = Bench::new(1).outcome(&guest, hard(50));
    assert!(matches!(outcome, Outcome::HardTimeLimit { .. }), "{outcome:?}");
}

#[test]
fn a_sleep_that_ignores_the_wish_to_stop_ends_at_the_hard_limit() {
    let guest = sleeper("(loop (call $sleep (i64.const 1000000) (i32.const 4096)) (br 0)) unreachable");
    let Outcome::HardTimeLimit { backtrace, .. } = Bench::new(1).outcome(&guest, soft_and_hard(20, 60))
    else {
        panic!("expected the hard limit")
    };
    assert!(backtrace.is_some(), "an import of rwork's own shows where the guest was");
}

#[test]
fn a_polling_guest_sees_the_soft_limit() {
    let guest = Guest::new(
        "(loop (call $stop-requested (i32.const 4096)) (br_if 0 (i32.eqz (i32.load8_u (i32.const 4096))))) (call $soft)",
    )
    .import("rwork:task/limits@0.1.0", "stop-requested", "(param i32)");
    let outcome = Bench::new(1).outcome(&guest, soft_and_hard(30, 60_000));
    let Outcome::SoftTimeLimit { limit, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(limit, Duration::from_millis(30));
}

#[test]
fn a_sleeping_guest_is_woken_at_the_soft_limit() {
    // Traps unless the sleep was cut short.
    let guest = sleeper(
        "(call $sleep (i64.const 3600000) (i32.const 4096))
         (if (i32.eqz (i32.load8_u (i32.const 4096))) (then unreachable)) (call $soft)",
    );
    let outcome = Bench::new(1).outcome(&guest, soft_and_hard(30, 600_000));
    assert!(matches!(outcome, Outcome::SoftTimeLimit { .. }), "{outcome:?}");
}

/// Waits in WASI, as the standard library's `sleep` does.
fn wasi_sleeper() -> Guest {
    Guest::new("(call $block (call $subscribe-duration (i64.const 3600000000000))) (call $ok)")
        .import("wasi:clocks/monotonic-clock@0.2.1", "subscribe-duration", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.1", "[method]pollable.block", "(param i32)")
}

#[test]
fn a_guest_that_waits_in_wasi_is_dropped_at_the_hard_limit() {
    let report = Bench::new(1).run(&wasi_sleeper(), soft_and_hard(10, 50));
    let limit = Duration::from_millis(50);
    assert_eq!(report.outcome, Outcome::HardTimeLimit { limit, backtrace: None });
    assert!(report.usage.cpu < report.usage.wall, "waiting costs no CPU time: {:?}", report.usage);
}

#[test]
fn a_guest_that_waits_in_wasi_is_dropped_after_the_grace_of_a_kill() {
    let bench = Bench::new(1);
    let prepared = bench.prepare(&wasi_sleeper());
    let invocation = bench.invocation(Limits {
        hard_time: None,
        kill_grace: Duration::from_millis(20),
        ..Limits::default()
    });
    let stop = invocation.stop.clone();
    let slot = bench.sandbox.try_admit().unwrap();
    let running = bench.sandbox.execute(slot, prepared, invocation);
    // Killed once it waits: until then it holds the only CPU slot.
    drop(bench.io.block_on(bench.sandbox.admit()));
    stop.kill(KillReason::Shutdown);
    assert_eq!(bench.io.block_on(running).outcome, Outcome::Killed(KillReason::Shutdown));
    bench.wait_empty();
}

#[test]
fn a_guest_that_waits_for_the_stop_pollable_is_woken() {
    let guest = Guest::new("(call $block (call $subscribe)) (call $soft)")
        .import("rwork:task/stop@0.1.0", "subscribe", "(result i32)")
        .import("wasi:io/poll@0.2.0", "[method]pollable.block", "(param i32)");
    let outcome = Bench::new(1).outcome(&guest, soft_and_hard(30, 600_000));
    assert!(matches!(outcome, Outcome::SoftTimeLimit { .. }), "{outcome:?}");
}

#[test]
fn a_short_sleep_is_not_cut() {
    let guest = sleeper(
        "(call $sleep (i64.const 5) (i32.const 4096)) (if (i32.load8_u (i32.const 4096)) (then unreachable)) (call $ok)",
    );
    assert_eq!(Bench::new(1).outcome(&guest, soft_and_hard(600_000, 600_000)), success("null"));
}

#[test]
fn a_blocked_import_returns_stopped_and_the_guest_may_go_on() {
    // progress.update("BLOCK", …) blocks in the host: result error (1), case stopped (2).
    let guest = Guest::new(
        "(call $update (i32.const 3100) (i32.const 5) (i32.const 3000) (i32.const 16) (i32.const 3070) (i32.const 2)
           (i32.const 4096))
         (if (i32.ne (i32.load8_u (i32.const 4096)) (i32.const 1)) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.const 4100)) (i32.const 2)) (then unreachable))
         (call $update (i32.const 3090) (i32.const 5) (i32.const 3000) (i32.const 16) (i32.const 3070) (i32.const 2)
           (i32.const 4096))
         (if (i32.load8_u (i32.const 4096)) (then unreachable))
         (call $ok)",
    )
    .import("rwork:task/progress@0.1.0", "update", "(param i32 i32 i32 i32 i32 i32 i32)");
    let bench = Bench::new(1);
    assert_eq!(bench.outcome(&guest, soft_and_hard(30, 600_000)), success("null"));
    assert_eq!(bench.host.lines(), ["progress guest []"], "what comes after the wish to stop goes through");
}

#[test]
fn a_kill_ends_computing_and_waiting_guests() {
    for guest in [Guest::new(SPIN), sleeper("(call $sleep (i64.const 3600000) (i32.const 4096)) (call $ok)")]
    {
        let bench = Bench::new(1);
        let prepared = bench.prepare(&guest);
        let invocation = bench.invocation(Limits { hard_time: None, ..Limits::default() });
        let stop = invocation.stop.clone();
        let slot = bench.sandbox.try_admit().unwrap();
        let running = bench.sandbox.execute(slot, prepared, invocation);
        stop.kill(KillReason::Revoked);
        assert_eq!(bench.io.block_on(running).outcome, Outcome::Killed(KillReason::Revoked));
        bench.wait_empty();
    }
}

#[test]
fn a_wish_from_outside_reaches_a_sleeping_guest() {
    let bench = Bench::new(1);
    let prepared = bench.prepare(&sleeper(
        "(call $sleep (i64.const 3600000) (i32.const 4096)) (call $value (i32.const 4100) (i32.const 1))",
    ));
    let invocation = bench.invocation(Limits::default());
    invocation.stop.request(StopReason::Shutdown);
    let slot = bench.sandbox.try_admit().unwrap();
    let outcome = bench.io.block_on(bench.sandbox.execute(slot, prepared, invocation)).outcome;
    // The reason's case number: shutdown.
    assert_eq!(outcome, success("\u{2}"));
}

#[test]
fn memory_is_capped_over_all_memories() {
    let limits = || Limits { memory_bytes_max: 16 * MIB, ..Limits::default() };
    let expect = |wanted| Outcome::MemoryLimit { cap: 16 * MIB, wanted };
    let page = 65_536;
    // Grows by 1 MiB until it can't, then gives up.
    let bomb =
        Guest::new("(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable");
    let report = Bench::new(1).run(&bomb, limits());
    assert_eq!(report.outcome, expect(2 * page + 16 * MIB));
    assert_eq!(report.usage.memory_bytes_peak, 2 * page + 15 * MIB);
    // 60 % of the cap each.
    let two = Guest::new(
        "(if (i32.eq (memory.grow (i32.const 154)) (i32.const -1)) (then (return (call $ok))))
         (if (i32.eq (memory.grow $second (i32.const 154)) (i32.const -1)) (then unreachable))
         (call $ok)",
    )
    .items("(memory $second 0)");
    assert_eq!(Bench::new(1).outcome(&two, limits()), expect((2 + 154 + 154) * page));
}

#[test]
fn a_guest_that_survives_a_refused_growth_is_believed() {
    let guest = Guest::new("(drop (memory.grow (i32.const 30000))) (call $ok)");
    assert_eq!(Bench::new(1).outcome(&guest, Limits::default()), success("null"));
}

#[test]
fn arguments_that_do_not_fit_are_a_memory_limit() {
    let bench = Bench::new(1);
    // Its allocator grows, and gives up when it can't.
    let guest = Guest::new("call $ok");
    let limits = Limits { memory_bytes_max: 64 << 10, ..Limits::default() };
    let outcome = bench.outcome(&guest, limits);
    assert_eq!(outcome, Outcome::MemoryLimit { cap: 64 << 10, wanted: 128 << 10 });
}

#[test]
fn tables_are_bounded() {
    let guest = Guest::new(
        "(if (i32.ne (table.grow $t (ref.null func) (i32.const 60000)) (i32.const -1)) (then unreachable)) (call $ok)",
    )
    .items("(table $t 1 funcref)");
    assert_eq!(Bench::new(1).outcome(&guest, Limits::default()), success("null"));
}

#[test]
fn a_result_over_the_limit_is_refused_with_its_size() {
    let run = |pages: usize| {
        let bytes = pages * 65_536;
        Guest::new(&format!(
            "(drop (memory.grow (i32.const {pages}))) (call $value (i32.const 0) (i32.const {bytes}))"
        ))
    };
    let limits = Limits { result_bytes_max: 2 * MIB, ..Limits::default() };
    let outcome = Bench::new(1).outcome(&run(48), limits.clone());
    assert_eq!(outcome, Outcome::ResultTooLarge { limit: 2 * MIB, size: 3 * MIB });
    // So large that it is not copied: the size is a lower bound.
    let outcome = Bench::new(1).outcome(&run(1_600), limits);
    assert_eq!(outcome, Outcome::ResultTooLarge { limit: 2 * MIB, size: 5 * MIB + 1 });
}

#[test]
fn a_call_that_hands_over_too_much_is_a_trap_that_says_so() {
    let guest = Guest::new(
        "(drop (memory.grow (i32.const 64)))
         (call $emit (i32.const 2) (i32.const 0) (i32.const 4000000) (i32.const 0) (i32.const 0)) (call $ok)",
    )
    .import("rwork:task/log@0.1.0", "emit", "(param i32 i32 i32 i32 i32)");
    let limits = Limits { result_bytes_max: MIB, ..Limits::default() };
    let Outcome::Trap(trap) = Bench::new(1).outcome(&guest, limits) else { panic!("expected a trap") };
    assert_eq!(trap.message, "the task passed more than 3145728 bytes to one call of the host");
}

#[test]
fn a_request_for_endless_randomness_is_refused() {
    let guest = Guest::new("(call $get-random-bytes (i64.const 1000000000) (i32.const 4096)) (call $ok)")
        .import("wasi:random/random@0.2.1", "get-random-bytes", "(param i64 i32)");
    assert!(matches!(Bench::new(1).outcome(&guest, Limits::default()), Outcome::Trap(_)));
}

#[test]
fn dropping_an_execution_frees_everything() {
    let guests = [
        Guest::new(SPIN),
        Guest::new("call $ok"),
        sleeper("(call $sleep (i64.const 3600000) (i32.const 4096)) (call $ok)"),
        Guest::new("call $ok").items("(func $init (loop (br 0))) (start $init)"),
    ];
    let bench = Bench::new(2);
    for prepared in guests.iter().map(|guest| bench.prepare(guest)) {
        // Dropped at once, after the guest began, and after some polls.
        for polls in 0..4 {
            let invocation = bench.invocation(Limits { hard_time: None, ..Limits::default() });
            let slot = bench.io.block_on(bench.sandbox.admit());
            let mut running = bench.sandbox.execute(slot, Arc::clone(&prepared), invocation);
            bench.io.block_on(async {
                for _ in 0..polls {
                    tokio::select! { biased; _ = &mut running => break, () = tokio::task::yield_now() => {} }
                }
            });
            drop(running);
            bench.wait_empty();
        }
    }
}
