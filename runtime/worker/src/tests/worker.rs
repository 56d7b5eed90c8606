//! One whole worker in a calm world: bounds, sharing, shutdown.

use std::time::Duration;

use rwork_protocol::State;

use crate::BYTES_MAX;
use crate::sim::fixture::{Calm, refused};

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_is_not_asked_for_ever() {
    let error = refused().await;
    assert_eq!(error.to_string(), "failed to consume from `celery`");
    assert_eq!(error.hint(), Some("look at `broker_url`"));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_there_and_refuses_is_asked_until_somebody_has_mended_it() {
    let world = Calm::start(1, |_| {});
    let first = world.send("ok", "before");
    world.until(|world| world.ended(first).is_some()).await;
    // As when its password is changed.
    world.break_off(true);
    let second = world.send("ok", "after");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.ended(second), None);
    world.break_off(false);
    world.until(|world| world.ended(second) == Some("acked")).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_is_held_than_slots_and_prefetch_allow() {
    let world = Calm::start(2, |config| config.prefetch_multiplier = 3);
    for number in 0..20 {
        world.send("slow", &format!("slow-{number}"));
    }
    world.until(|world| world.running_and_unstarted().0 == 2).await;
    world.until(|world| world.running_and_unstarted().1 > 0).await;
    assert!(world.running_and_unstarted().1 <= 3);
}

/// Batches wait until half of the store is used up; long tasks have no use for batches.
#[tokio::test(start_paused = true)]
async fn as_much_is_held_as_prefetch_allows_when_nothing_starts() {
    let world = Calm::start(1, |config| config.prefetch_multiplier = 4);
    for number in 0..20 {
        world.send("patient", &format!("long-{number}"));
    }
    world.until(|world| world.running_and_unstarted() == (1, 4)).await;
    assert!(world.record("long-0").is_none(), "the first one still runs");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_while_memory_is_full_and_everything_after_it() {
    let world = Calm::start(1, |_| {});
    let full = world.budget.bodies.take(BYTES_MAX);
    let all: Vec<_> = (0..20).map(|number| world.send("ok", &format!("ok-{number}"))).collect();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(all.iter().any(|serial| world.ended(*serial).is_none()), "more was taken than fits");
    drop(full);
    world.until(|world| all.iter().all(|serial| world.ended(*serial) == Some("acked"))).await;
}

/// The commits that make room are among those that fit.
#[tokio::test(start_paused = true)]
async fn what_fits_passes_what_a_full_store_has_no_room_for() {
    let world = Calm::start(1, |config| config.settle_batch_max = 2);
    world.fill_store(true);
    let large: Vec<_> = (0..3).map(|number| world.send_chain(&format!("ok-{number}"))).collect();
    let small = world.send("ignore", "small");
    world.until(|world| world.ended(small) == Some("acked")).await;
    assert!(
        large.iter().all(|serial| world.ended(*serial).is_none()),
        "there was no room for what follows them"
    );
    world.fill_store(false);
    world.until(|world| large.iter().all(|serial| world.ended(*serial) == Some("acked"))).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_started_than_a_full_store_may_hold_up() {
    let world = Calm::start(1, |config| config.settle_batch_max = 2);
    world.fill_store(true);
    let all: Vec<_> = (0..100).map(|number| world.send_chain(&format!("ok-{number}"))).collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.ran() < 20, "{} ran in vain", world.ran());
    world.fill_store(false);
    world.until(|world| all.iter().all(|serial| world.ended(*serial) == Some("acked"))).await;
}

/// A line that is lost while the last outcomes are committed is mended as often as it takes.
#[tokio::test(start_paused = true)]
async fn a_line_is_mended_twice_while_the_last_outcomes_are_committed() {
    let world = Calm::start(1, |_| {});
    world.fill_store(true);
    let last = world.send_chain("last");
    world.until(|world| world.ran() == 1).await;
    world.shutdown.intake.cancel();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.break_off(false);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.fill_store(false);
    world.until(|world| world.ended(last).is_some()).await;
    assert_eq!(world.ended(last), Some("acked"));
    assert_eq!(world.stopped().await.succeeded, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_for_short_goes_back_when_tasks_become_long() {
    let world = Calm::start(1, |config| config.prefetch_multiplier = 2);
    // Short enough for a large prefetch.
    for number in 0..40 {
        world.send("early", &format!("short-{number}"));
    }
    world.until(|world| world.record("short-39").is_some()).await;
    for number in 0..40 {
        world.send("patient", &format!("long-{number}"));
    }
    world.until(|world| world.running_and_unstarted().0 == 1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(world.running_and_unstarted().1 <= 2, "{:?}", world.running_and_unstarted());
}

#[tokio::test(start_paused = true)]
async fn a_warm_shutdown_lets_what_runs_end_and_gives_back_the_rest() {
    let world = Calm::start(1, |_| {});
    let (first, second) = (world.send("slow", "runs"), world.send("slow", "waits"));
    world.until(|world| world.running_and_unstarted() == (1, 1)).await;
    world.shutdown.intake.cancel();
    world.until(|world| world.ended(second).is_some()).await;
    // At once, not when the other has ended.
    assert_eq!((world.ended(first), world.ended(second)), (None, Some("released")));
    world.until(|world| world.ended(first).is_some()).await;
    assert_eq!(world.record("runs").unwrap().status, State::Success);
    let summary = world.stopped().await;
    assert_eq!((summary.succeeded, summary.released, summary.ran()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_asks_then_kills() {
    let world = Calm::start(2, |_| {});
    let (polite, deaf) = (world.send("patient", "polite"), world.send("deaf", "deaf"));
    world.until(|world| world.running_and_unstarted().0 == 2).await;
    world.shutdown.intake.cancel();
    world.shutdown.work.cancel();
    world.until(|world| world.ended(deaf).is_some()).await;
    assert_eq!((world.ended(polite), world.ended(deaf)), (Some("acked"), Some("interrupted")));
    assert_eq!(world.record("polite").unwrap().status, State::Success);
    assert_eq!(world.record("deaf"), None);
    let summary = world.stopped().await;
    assert_eq!((summary.succeeded, summary.shut_down), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_stops_at_once() {
    let world = Calm::start(1, |_| {});
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.shutdown.intake.cancel();
    let began = tokio::time::Instant::now();
    world.stopped().await;
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acked_and_little_is_taken_while_the_backend_is_away() {
    let world = Calm::start(2, |config| {
        config.settle_batch_max = 2;
        config.prefetch_max = 4;
    });
    world.take_backend_away(Duration::from_secs(30));
    let all: Vec<_> = (0..40).map(|number| world.send("ok", &format!("ok-{number}"))).collect();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(all.iter().all(|serial| world.ended(*serial).is_none()));
    let (running, unstarted) = world.running_and_unstarted();
    // Slots and prefetch: what is done and can't be stored keeps its place.
    assert!(running + unstarted <= 2 + 4, "{running} + {unstarted}");
    world.until(|world| all.iter().all(|serial| world.ended(*serial) == Some("acked"))).await;
}
