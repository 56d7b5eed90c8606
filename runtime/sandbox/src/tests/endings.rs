//! How a guest ends by itself: values, failures, traps.

use std::sync::Arc;

use super::guest::Guest;
use super::{Bench, success};
use crate::{Allocator, Input, Limits, Outcome, Pooling, Sandbox, SandboxConfig, Trap};

#[test]
fn a_value_comes_back_with_what_it_cost() {
    let report = Bench::new(1).run(&Guest::new("call $ok"), Limits::default());
    assert_eq!(report.outcome, success("null"));
    assert_eq!(report.usage.memory_bytes_peak, 128 << 10);
    assert!(report.usage.wall >= report.usage.cpu);
}

#[test]
fn arguments_cross_untouched() {
    let guest = Guest::new("(call $value (local.get 7) (local.get 8))");
    assert_eq!(Bench::new(1).outcome(&guest, Limits::default()), success("[1, 2]"));
}

#[test]
fn a_guest_can_be_large_in_and_out() {
    let bench = Bench::new(1);
    // The arguments need more memory than the guest is born with.
    let realloc = "(func $need (param i32) (drop (memory.grow (i32.const 32))))";
    let guest = Guest::new("(call $value (local.get 7) (local.get 8))").items(realloc);
    let guest = Guest {
        items: format!("{} (start $init) (func $init (call $need (i32.const 0)))", guest.items),
        ..guest
    };
    let prepared = bench.prepare(&guest);
    let args: bytes::Bytes = vec![b'x'; 1 << 20].into();
    let mut invocation = bench.invocation(Limits::default());
    invocation.input = Input::Call {
        content_type: "application/json".to_owned(),
        args: args.clone(),
        kwargs: bytes::Bytes::new(),
    };
    let slot = bench.sandbox.try_admit().unwrap();
    let report = bench.io.block_on(bench.sandbox.execute(slot, prepared, invocation));
    let Outcome::Success(payload) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(payload.data, args);
}

#[test]
fn a_failure_is_the_guests_own() {
    let Outcome::Failed(failure) = Bench::new(1).outcome(&Guest::new("call $soft"), Limits::default()) else {
        panic!("expected a failure")
    };
    assert_eq!(
        (failure.exc_type.as_str(), failure.exc_args.data.as_ref()),
        ("SoftTimeLimitExceeded", &b"[]"[..])
    );
    assert_eq!((failure.exc_module, failure.traceback, failure.retryable), (None, None, false));
}

#[test]
fn a_panic_says_what_and_where() {
    let guest = Guest::new(
        "(call $panic (i32.const 3110) (i32.const 9) (i32.const 1) (i32.const 3130) (i32.const 14)) (call $deep)",
    )
    .import("rwork:task/log@0.1.0", "panic", "(param i32 i32 i32 i32 i32)")
    .items("(func $deep (result i32) unreachable)");
    let trap = trap(&guest);
    assert_eq!(trap.message, "panicked at src/lib.rs:3:5: \\u{1b}[31mboom");
    // The entry below is left out, what the author wrote is kept.
    assert_eq!(trap.backtrace.as_deref(), Some("   0: deep"));
}

#[test]
fn traps_are_named_in_users_words() {
    for (run, items, expect) in [
        ("unreachable", "", "the guest aborted (`unreachable` instruction)"),
        (
            "(call $again)",
            "(func $again (result i32) (i32.add (call $again) (i32.const 1)))",
            "call stack exhausted: the recursion is too deep",
        ),
        ("(i32.div_s (i32.const 1) (i32.const 0))", "", "integer divide by zero"),
        (
            "(i32.load (i32.const -1))",
            "",
            "out of bounds memory access: a stray pointer, or the guest's own stack overflowed",
        ),
    ] {
        assert_eq!(trap(&Guest::new(run).items(items)).message, expect);
    }
}

#[test]
fn a_recursion_is_shown_once() {
    let items = "(global $sp (mut i32) (i32.const 65536))
        (func $deeper (result i32)
          (global.set $sp (i32.sub (global.get $sp) (i32.const 1024)))
          (i32.store (global.get $sp) (i32.const 1))
          (i32.add (call $deeper) (i32.const 1)))";
    let trap = trap(&Guest::new("(call $deeper)").items(items));
    assert_eq!(trap.message, "the guest's own stack overflowed: the recursion is too deep");
    assert_eq!(trap.backtrace.as_deref(), Some("   0: deeper (32 times)"));
}

#[test]
fn exit_is_no_way_to_end_a_task() {
    for (status, code) in [(0, 0), (1, 1)] {
        let run = format!("(call $exit (i32.const {status})) unreachable");
        let guest = Guest::new(&run).import("wasi:cli/exit@0.2.1", "exit", "(param i32)");
        let expect = format!("the task ended its program with exit({code}) instead of returning");
        assert_eq!(trap(&guest).message, expect);
    }
}

#[test]
fn a_panic_of_the_host_is_not_the_guests_fault() {
    let update =
        "(call $update (i32.const 3105) (i32.const 5) (i32.const 3000) (i32.const 16) (i32.const 3070)
        (i32.const 2) (i32.const 4096)) (call $ok)";
    let signature = "(param i32 i32 i32 i32 i32 i32 i32)";
    let guest = Guest::new(update).import("rwork:task/progress@0.1.0", "update", signature);
    let outcome = Bench::new(1).outcome(&guest, Limits::default());
    assert!(matches!(outcome, Outcome::HostFault(_)), "{outcome:?}");
}

#[test]
fn guests_run_without_a_pool_too() {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = SandboxConfig { pooling: Pooling::Never, ..SandboxConfig::with_concurrency(1) };
    let sandbox = Sandbox::new(config, io.handle().clone()).unwrap();
    assert_eq!(sandbox.metrics().allocator, Allocator::OnDemand);
    let bench = Bench { sandbox, host: Arc::default(), io };
    assert_eq!(bench.outcome(&Guest::new("call $ok"), Limits::default()), success("null"));
}

#[test]
fn nothing_of_one_task_is_seen_by_the_next() {
    // Fails with a trap if its memory is not as it was born, then fills all of it.
    let guest = Guest::new(
        "(local $at i32) (local.set $at (i32.const 8192))
         (loop $next
           (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
           (local.set $at (i32.add (local.get $at) (i32.const 8)))
           (br_if $next (i32.lt_u (local.get $at) (i32.const 60000))))
         (drop (memory.grow (i32.const 64)))
         (if (i64.ne (i64.load (i32.const 4000000)) (i64.const 0)) (then unreachable))
         (memory.fill (i32.const 4096) (i32.const 0xa5) (i32.const 4300000))
         (call $ok)",
    );
    let bench = Bench::new(1);
    let prepared = bench.prepare(&guest);
    // More often than there are slots in the pool.
    for _ in 0..40 {
        assert_eq!(bench.io.block_on(bench.start(&prepared, Limits::default())).outcome, success("null"));
    }
}

fn trap(guest: &Guest) -> Trap {
    match Bench::new(1).outcome(guest, Limits::default()) {
        Outcome::Trap(trap) => trap,
        other => panic!("expected a trap, got {other:?}"),
    }
}
