//! Guests that end by themselves, but not by returning: panics, exits, recursion without end.

use rwork_protocol::Record;
use rwork_tests::rig::Setup;
use rwork_tests::rig::component::TextGuest;
use rwork_worker::Summary;

use super::{Ended, let_loose, unlimited};

/// Where the fixture's panic stands, as the panic says it.
fn place_of_the_panic() -> String {
    let source = include_str!("../../fixtures/hostile/src/lib.rs");
    let line = source.lines().position(|line| line.contains("panic!(\"{message}\")")).unwrap() + 1;
    format!("tests/fixtures/hostile/src/lib.rs:{line}:5")
}

async fn trap(setup: Setup, task: &str, args: &str) -> Ended {
    let_loose(setup, task, args, unlimited(), |summary: &mut Summary| summary.trapped += 1).await
}

#[track_caller]
fn assert_lost(ended: &Ended, why: &str) {
    let args = format!("[\"Worker exited prematurely: {why}\"]");
    ended.assert_exception("billiard.exceptions", "WorkerLostError", &args);
}

fn traceback(record: &Record) -> &str {
    record.traceback.as_deref().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_with_its_message_and_its_place() {
    let ended = trap(Setup::new(&["math", "hostile"]), "hostile.panic", "[\"no luck\"]").await;
    assert_lost(&ended, &format!("panicked at {}: no luck", place_of_the_panic()));
    let frames: Vec<_> = traceback(&ended.record).lines().collect();
    assert!(frames[0].contains("hostile::give_up"), "{frames:?}");
    assert!(!frames.iter().any(|frame| frame.contains("panic_fmt")), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_is_no_way_to_end_a_task() {
    for (status, told) in [(0, 0), (3, 1)] {
        // Of any status but 0, WASI 0.2 tells the host only that it is not 0.
        let ended = trap(Setup::new(&["math", "hostile"]), "hostile.exit", &format!("[{status}]")).await;
        assert_lost(&ended, &format!("the task ended its program with exit({told}) instead of returning"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recursion_without_end_ends_with_the_stack() {
    // In the host's stack of WebAssembly frames.
    let deep =
        TextGuest::new("deep.run").items("(func $deeper (call $deeper))").run("(call $deeper) unreachable");
    let ended = trap(Setup::new(&["math"]).file("deep.wasm", deep.build()), "deep.run", "[]").await;
    assert_lost(&ended, "call stack exhausted: the recursion is too deep");

    // In the guest's own stack, which lies in its memory.
    let ended = trap(Setup::new(&["math", "hostile"]), "hostile.recurse", "[]").await;
    assert_lost(&ended, "the guest's own stack overflowed: the recursion is too deep");
    assert!(traceback(&ended.record).contains("hostile::deeper"), "{:?}", ended.record.traceback);
}
