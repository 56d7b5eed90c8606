//! The file deleted or replaced under a running consumer (issue 10, fault 18).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Consumer, Disposition, Ending, Error, Publish, Resumed, Room,
    Route,
};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{Message, QueueName};

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

async fn check(what: fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let broker = open(&path);
    let consumer = consume(&broker).await;
    broker.publish_all(vec![message("before")]).await.unwrap();
    let held = consumer.receive(ROOM).await.unwrap().remove(0);
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
    let ack = Commit {
        records: Vec::new(),
        publish: Vec::new(),
        ending: Ending::Settle(held.settle(Disposition::Ack)),
    };
    let mut batch = Batch { number: 1, commits: vec![ack] };
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
