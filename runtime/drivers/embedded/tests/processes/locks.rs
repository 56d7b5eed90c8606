//! A file that somebody keeps locked (issue 10, faults 15 and 16).

use std::error::Error as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rwork_broker::{Batch, Broker, Committed, Error, Room};
use rwork_embedded::Embedded;
use rwork_protocol::TaskId;

use crate::roles::{BUSY, Role, consume, impatient, message, open, outcome, queue};

const ROOM: Room = Room { messages: 10, bytes: usize::MAX };
/// Calls take their time-out, twice if they just missed a turn, and the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

/// Checks an error that says who holds the lock, and that the call did not wait for long.
fn check_busy(error: &Error, began: Instant, holder: &Role) {
    assert!(error.is_retryable(), "{error}");
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains(&format!("process {} (", holder.child.id())), "{cause}");
    assert!(cause.contains("keeps it locked for more than 0.3 s"), "{cause}");
    assert!(began.elapsed() >= BUSY && began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// Every call fails soon, with a word, and works again when the holder is gone.
async fn check_locked_out(path: &Path, role: &str, stopped: bool) {
    let broker = Embedded::open(impatient(path)).unwrap();
    let consumer = consume(&broker).await;
    broker.publish_all(vec![message(&TaskId::generate())]).await.unwrap();
    let held = consumer.receive(ROOM).await.unwrap().remove(0);
    let batch = Batch { number: 1, commits: vec![outcome(held)] };

    let holder = Role::start(role, path);
    assert_eq!(holder.line(), "locked");
    if stopped {
        holder.stop();
    }
    let began = Instant::now();
    check_busy(&broker.publish_all(vec![message(&TaskId::generate())]).await.unwrap_err(), began, &holder);
    let began = Instant::now();
    let error = consumer.commit(&batch).await.unwrap_err();
    check_busy(&error, began, &holder);
    assert_eq!(error.source().unwrap().to_string().contains("stopped"), stopped);
    let began = Instant::now();
    check_busy(&broker.purge(&queue("q")).await.unwrap_err(), began, &holder);
    let path = path.to_owned();
    let began = Instant::now();
    let opened = tokio::task::spawn_blocking(move || Embedded::open(impatient(&path))).await.unwrap();
    // The schema is made, so that a stranger inside SQLite's lock hinders nobody to open.
    if let Err(error) = opened {
        check_busy(&error, began, &holder);
    }
    // What is held stays held.
    assert!(consumer.renew().await.unwrap());
    drop(holder);
    assert_eq!(consumer.commit(&batch).await.unwrap(), [Committed::Done]);
    assert_eq!(consumer.commit(&batch).await.unwrap(), [Committed::Done]);
    assert_eq!(broker.purge(&queue("next")).await.unwrap(), 1);
}

pub(crate) async fn a_stopped_process_that_holds_the_lock_is_named() {
    let folder = tempfile::tempdir().unwrap();
    check_locked_out(&folder.path().join("rwork.db"), "locker", true).await;
}

pub(crate) async fn a_client_that_holds_the_database_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    check_locked_out(&folder.path().join("rwork.db"), "writer", false).await;
}

pub(crate) async fn a_long_purge_lets_others_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let (busy, other) = (open(&path), open(&path));
    let many: Vec<_> = (0..50_000).map(|_| message(&TaskId::generate())).collect();
    busy.publish_all(many).await.unwrap();
    let purge = tokio::spawn(async move { (busy.purge(&queue("q")).await.unwrap(), Instant::now()) });
    // Each of these is a turn of another process, as far as the lock knows.
    let mut turns = 0;
    while !purge.is_finished() {
        let id = TaskId::generate();
        let mut elsewhere = message(&id);
        elsewhere.route.routing_key = "elsewhere".to_owned();
        other.publish_all(vec![elsewhere]).await.unwrap();
        turns += 1;
    }
    let (purged, _) = purge.await.unwrap();
    assert_eq!(purged, 50_000);
    assert!(turns >= 10, "{turns} turns in a purge of fifty");
}
