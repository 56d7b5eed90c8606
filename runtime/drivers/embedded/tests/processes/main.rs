//! Several processes on one file, killed, stopped and locked out: nothing accepted is lost, nothing runs twice but what was
//! running at a kill, and nobody waits for ever.
//!
//! The parent starts itself again in other roles and reads from their output what they did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails; the children talk to their parent by printing"
)]

mod kills;
mod locks;
mod lost_log;
mod roles;
mod stops;

use std::path::Path;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let file = std::env::var(roles::FILE).unwrap_or_default();
    let file = Path::new(&file);
    match std::env::var(roles::ROLE).as_deref() {
        Ok("worker") => runtime.block_on(roles::work(file)),
        Ok("holder") => runtime.block_on(roles::hold(file)),
        Ok("producer") => runtime.block_on(roles::produce(file)),
        Ok("locker") => roles::lock(file),
        Ok("writer") => roles::write(file),
        _ => runtime.block_on(all()),
    }
}

macro_rules! run {
    ($($test:path),* $(,)?) => {
        println!("\nrunning {} tests", [$(stringify!($test)),*].len());
        $(
            $test().await;
            println!("test {} ... ok", stringify!($test));
        )*
        println!();
    };
}

async fn all() {
    run!(
        kills::a_result_wakes_another_process,
        kills::kills_lose_nothing_and_double_no_follow_up,
        kills::a_dead_consumer_is_found_within_seconds,
        stops::a_stopped_process_keeps_what_it_holds,
        locks::a_stopped_process_that_holds_the_lock_is_named,
        locks::a_client_that_holds_the_database_ends_nothing,
        locks::a_long_purge_lets_others_in,
        lost_log::what_others_send_after_a_deleted_log_is_seen,
    );
}
