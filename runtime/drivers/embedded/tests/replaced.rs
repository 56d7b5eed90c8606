//! The file deleted or replaced under a running consumer (issue 10, fault 18).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Consumer, Delivery, Disposition, Ending, Error, Publish,
    Resumed, Room, Route,
};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{Message, QueueName};
use tempfile::TempDir;

const ROOM: Room = Room { messages: 10, bytes: usize::MAX };
/// Only ends a test that would hang.
const HANG: Duration = Duration::from_secs(60);

fn open(path: &Path) -> Embedded {
    Embedded::open(Options { path: path.to_owned(), ..Options::default() }).unwrap()
}

fn message(body: &'static str) -> Publish {
    let message = Message { body: Bytes::from_static(body.as_bytes()), ..Message::default() };
    Publish { route: Route::queue(&QueueName::new("q").unwrap()), message, not_before: None }
}

async fn consume(broker: &Embedded) -> Box<dyn Consumer> {
    let queues = vec![QueueName::new("q").unwrap()];
    broker.consume(Consume { queues, name: "w".to_owned(), unsettled_max: 10 }).await.unwrap()
}

/// A consumer on a file of its own that holds one message.
struct Holding {
    folder: TempDir,
    path: PathBuf,
    broker: Embedded,
    consumer: Box<dyn Consumer>,
    held: Delivery,
}

async fn hold() -> Holding {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let broker = open(&path);
    let consumer = consume(&broker).await;
    broker.publish_all(vec![message("before")]).await.unwrap();
    let held = consumer.receive(ROOM).await.unwrap().remove(0);
    Holding { folder, path, broker, consumer, held }
}

fn ack(held: Delivery) -> Commit {
    let ending = Ending::Settle(held.settle(Disposition::Ack));
    Commit { records: Vec::new(), publish: Vec::new(), ending }
}

async fn check(what: fn(&Path)) {
    let Holding { folder: _folder, path, broker, consumer, held } = hold().await;
    assert!(consumer.renew().await.unwrap());
    // The waiting call is told, without anybody ringing.
    let waiting = tokio::time::timeout(HANG, consumer.receive(ROOM));
    let (told, ()) = tokio::join!(waiting, async {
        tokio::task::yield_now().await;
        what(&path);
    });
    let told = told.unwrap().unwrap_err();
    assert!(matches!(told, Error::Unreachable { .. }), "{told}");
    assert!(told.hint().is_some());
    assert!(!consumer.renew().await.unwrap());
    let mut batch = Batch { number: 1, commits: vec![ack(held)] };
    assert!(matches!(consumer.commit(&batch).await, Err(Error::Unreachable { .. })));
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Forgotten);
    consumer.close(&[]).await.unwrap();
    // A new file, for this process and for others.
    let (again, other) = (consume(&broker).await, open(&path));
    batch.commits[0].ending = Ending::Unfenced;
    assert_eq!(again.commit(&batch).await.unwrap(), [Committed::Done]);
    other.publish_all(vec![message("after")]).await.unwrap();
    let after = tokio::time::timeout(HANG, again.receive(ROOM)).await.unwrap().unwrap();
    assert_eq!(after[0].message.body, "after");
    assert_eq!(broker.queues().await.unwrap(), other.queues().await.unwrap());
    assert!(again.renew().await.unwrap());
    assert_eq!(broker.check_integrity().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_deleted_file_is_noticed() {
    check(|path| fs::remove_file(path).unwrap()).await;
}

#[tokio::test]
async fn all_files_deleted_are_noticed() {
    check(|path| {
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            // The process that notices may be quicker.
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    })
    .await;
}

#[tokio::test]
async fn a_replaced_file_is_noticed() {
    check(|path| {
        let other = path.with_file_name("other.db");
        Connection::open(&other).unwrap().execute_batch(include_str!("first_edition.sql")).unwrap();
        // With the old log beside it.
        fs::rename(&other, path).unwrap();
    })
    .await;
}

/// SQLite's files beside the database: what others send is seen all the same, and what was held is still held.
async fn check_log(suffix: &str) {
    let Holding { folder: _folder, path, broker, consumer, held } = hold().await;
    let stranger = Connection::open(&path).unwrap();
    stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(stranger);
    fs::remove_file(path.with_file_name(format!("rwork.db{suffix}"))).unwrap();
    let other = open(&path);
    let after = async {
        loop {
            // Refused while the file is opened anew.
            match tokio::time::timeout(HANG, consumer.receive(ROOM)).await.unwrap() {
                Ok(came) => return came,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    };
    let (came, sent) = tokio::join!(after, other.publish_all(vec![message("after")]));
    sent.unwrap();
    assert_eq!(came[0].message.body, "after");
    let batch = Batch { number: 1, commits: vec![ack(held), ack(came[0].clone())] };
    assert_eq!(consumer.commit(&batch).await.unwrap(), [Committed::Done, Committed::Done]);
    for handle in [&broker, &other] {
        assert_eq!(handle.check_integrity().await.unwrap(), [""; 0]);
        assert_eq!(handle.queues().await.unwrap().iter().map(|queue| queue.ready).sum::<u64>(), 0);
    }
}

#[tokio::test]
async fn a_deleted_log_is_noticed() {
    check_log("-wal").await;
}

#[tokio::test]
async fn a_deleted_index_of_the_log_is_noticed() {
    check_log("-shm").await;
}

/// A database that can't be written is no commit's own fault: the batch waits, and is done when that is mended.
#[tokio::test]
async fn a_commit_waits_for_a_file_that_can_be_written_again() {
    let Holding { folder: _folder, path, broker: _broker, consumer, held } = hold().await;
    // Whoever writes, root included, is refused by the database itself.
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("ALTER TABLE session RENAME TO session_away").unwrap();
    let batch = Batch { number: 1, commits: vec![ack(held)] };
    let error = consumer.commit(&batch).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    stranger.execute_batch("ALTER TABLE session_away RENAME TO session").unwrap();
    assert_eq!(consumer.commit(&batch).await.unwrap(), [Committed::Done]);
}
