//! The leak canary: what a task wrote into its memory and its stack is never seen by the next one in the same slot, of the
//! same plugin or of another.

use rwork_protocol::{Record, State};
use rwork_sandbox::Pooling;
use rwork_tests::rig::{CallOptions, Rig, Setup};
use serde::de::DeserializeOwned;

/// What `canary.fill` writes at least: 48 MiB of heap.
const FILLED_BYTES: u64 = 48 << 20;

/// More than the pool has places for memories and stacks, so that every place is filled and looked into several times.
const ROUNDS: usize = 40;

/// One slot: a search runs where the fill before it ran.
async fn one_slot(pooling: Pooling) -> Rig {
    let setup = Setup::new(&["canary", "hostile"]);
    let setup = setup.sandbox(|sandbox| {
        (sandbox.concurrency, sandbox.max_in_flight, sandbox.pooling) = (1, 1, pooling);
    });
    setup.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_sees_what_another_one_left() {
    for pooling in [Pooling::Always, Pooling::Never] {
        let rig = one_slot(pooling).await;
        for round in 0..ROUNDS {
            let written: u64 = call(&rig, "canary.fill").await;
            assert!(written * 8 > FILLED_BYTES);
            let search = if round % 2 == 0 { "canary.search" } else { "hostile.search" };
            assert_sees_nothing(&rig, search).await;
        }
        rig.until_idle().await;
        assert_eq!(rig.stop().await.succeeded, 2 * ROUNDS as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_by_a_task_that_was_killed_or_trapped() {
    let rig = one_slot(Pooling::Always).await;
    for task in ["hostile.hoard", "hostile.recurse", "hostile.spin"] {
        call::<u64>(&rig, "canary.fill").await;
        let record = rig.call(task, "[]", CallOptions::default().hard(200)).await;
        assert_eq!(record.status, State::Failure, "{task}");
        assert_sees_nothing(&rig, "canary.search").await;
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_search_finds_what_is_there() {
    let rig = one_slot(Pooling::Always).await;
    let (written, (found, looked_at)): (u64, (u64, u64)) = call(&rig, "canary.control").await;
    // Heap and stack alike, which lies deeper than the search's own frame; copies on the way are found too.
    assert!(found >= written, "{found} of {written}");
    assert!(looked_at > FILLED_BYTES);
    rig.stop().await;
}

async fn assert_sees_nothing(rig: &Rig, search: &str) {
    let (found, looked_at): (u64, u64) = call(rig, search).await;
    assert!(looked_at > FILLED_BYTES, "{search} looked at {looked_at} bytes only");
    assert_eq!(found, 0, "{search} found words of an earlier task");
}

async fn call<T: DeserializeOwned>(rig: &Rig, task: &str) -> T {
    let Record { status, result, .. } = rig.call(task, "[]", CallOptions::default()).await;
    assert_eq!(status, State::Success, "{task}: {result:?}");
    serde_json::from_slice(&result).unwrap()
}
