//! A disk that is full, on a small file system of its own: producers are told, workers drain, nothing accepted is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and a skipped test says so"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use rusqlite::Connection;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Delivery, Disposition, Ending, Publish, Room, Route,
};
use rwork_embedded::{Embedded, Error, Options};
use rwork_protocol::{Message, Properties, QueueName, Record, State, TaskId};

const DISK_BYTES: u64 = 32 << 20;
const BALLAST_BYTES: u64 = 8 << 20;
const BATCH: usize = 20;
const ROOM: Room = Room { messages: 64, bytes: usize::MAX };

/// A small file system, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_BYTES},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            _ => None,
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes every byte that is left.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        // Ends with the disk.
        std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the threads of the database may still be closing it.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the file system is left behind");
    }
}

fn open(disk: &Disk) -> Embedded {
    let path = disk.path().join("rwork.db");
    Embedded::open(Options { path, ballast_bytes: BALLAST_BYTES, ..Options::default() }).unwrap()
}

fn batch(ids: &[TaskId]) -> Vec<Publish> {
    let publish = |id: &TaskId| {
        let properties = Properties { correlation_id: Some(id.to_string()), ..Properties::default() };
        let message = Message { properties, body: Bytes::from(vec![7; 5000]), ..Message::default() };
        Publish { route: Route::queue(&QueueName::new("q").unwrap()), message, not_before: None }
    };
    ids.iter().map(publish).collect()
}

fn success(id: &TaskId) -> Store {
    let record = Record {
        task_id: id.clone(),
        status: State::Success,
        result: Bytes::from_static(b"42"),
        traceback: None,
        children: None,
        date_done: None,
        group_id: None,
        parent_id: None,
        component: None,
        extended: None,
        other: Vec::new(),
    };
    Store { record, expires: None, reply_to: None, correlation_id: None }
}

fn ack(delivery: Delivery) -> Commit {
    let ending = Ending::Settle(delivery.settle(Disposition::Ack));
    Commit { records: Vec::new(), publish: Vec::new(), ending }
}

fn outcome((id, delivery): (&TaskId, Delivery)) -> Commit {
    Commit { records: vec![success(id)], ..ack(delivery) }
}

/// Publishes until the disk is full; what was accepted.
async fn publish_until_full(producer: &Embedded) -> BTreeSet<TaskId> {
    let mut accepted = BTreeSet::new();
    loop {
        let ids: Vec<_> = (0..BATCH).map(|_| TaskId::generate()).collect();
        match producer.publish_all(batch(&ids)).await {
            Ok(()) => accepted.extend(ids),
            Err(error) => {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                assert!(error.to_string().contains("is full: no space left on its disk"), "{error}");
                assert!(error.is_retryable() && error.hint().unwrap().contains("free space"));
                return accepted;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_are_told_and_workers_drain() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let ballast = disk.path().join("rwork.db-ballast");
    let (producer, worker) = (open(&disk), open(&disk));
    let accepted = publish_until_full(&producer).await;
    assert!(accepted.len() > 1000, "only {} fit", accepted.len());
    assert!(ballast.exists(), "a producer used up what is kept for draining");
    let filler = disk.fill();

    let queue = QueueName::new("q").unwrap();
    let consume = Consume { queues: vec![queue.clone()], name: "w".to_owned(), unsettled_max: 64 };
    let consumer = worker.consume(consume).await.unwrap();
    let mut drained = BTreeSet::new();
    let (mut refused, mut number) = (false, 0);
    while drained.len() < accepted.len() {
        let deliveries = consumer.receive(ROOM).await.unwrap();
        let ids: Vec<_> = deliveries
            .iter()
            .map(|delivery| {
                TaskId::new(delivery.message.properties.correlation_id.as_ref().unwrap()).unwrap()
            })
            .collect();
        // Beside each other, so that they can meet in one turn: a refused publication must not hurt a settlement.
        let more: Vec<_> = (0..BATCH).map(|_| TaskId::generate()).collect();
        number += 1;
        let outcomes = Batch { number, commits: ids.iter().zip(deliveries).map(outcome).collect() };
        let (committed, sent) = tokio::join!(consumer.commit(&outcomes), worker.publish_all(batch(&more)));
        assert_eq!(committed.unwrap(), vec![Committed::Done; ids.len()]);
        refused |= matches!(sent, Err(Error::Full { .. }));
        assert!(sent.is_err() || drained.len() > 200, "published into a full disk");
        drained.extend(ids);
        if sent.is_ok() {
            // Space came back by draining alone: what was accepted now is part of the account.
            break;
        }
    }
    assert!(refused);
    fs::remove_file(filler).unwrap();

    // With room again the reserve comes back, and producers are accepted.
    let more: Vec<_> = (0..BATCH).map(|_| TaskId::generate()).collect();
    while producer.publish_all(batch(&more)).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(ballast.exists());
    let mut left = accepted.difference(&drained).cloned().collect::<BTreeSet<_>>();
    left.extend(more);
    while !left.is_empty() {
        for delivery in consumer.receive(ROOM).await.unwrap() {
            let id = TaskId::new(delivery.message.properties.correlation_id.as_ref().unwrap()).unwrap();
            assert!(!drained.contains(&id), "settled before, and delivered again");
            left.remove(&id);
            number += 1;
            consumer.commit(&Batch { number, commits: vec![ack(delivery)] }).await.unwrap();
        }
    }
    let results = producer.get(&drained.iter().cloned().collect::<Vec<_>>()).await.unwrap();
    assert!(results.iter().all(Option::is_some), "a stored result is missing");
    let db = Connection::open(disk.path().join("rwork.db")).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_full_disk_can_be_opened_for_draining() {
    let Some(disk) = Disk::mount() else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let ballast = disk.path().join("rwork.db-ballast");
    let accepted = publish_until_full(&open(&disk)).await;
    // Someone deleted the reserve by hand, and the disk filled up with other things but for a little.
    fs::remove_file(&ballast).unwrap();
    let little = fs::File::create(disk.path().join("little")).unwrap();
    little.set_len(0).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(1), BALLAST_BYTES / 2), &mut &little).unwrap();

    let broker = open(&disk);
    let refusal = broker.publish_all(batch(&[TaskId::generate()])).await.unwrap_err();
    assert!(matches!(refusal, Error::Full { .. }), "{refusal}");
    let queues = vec![QueueName::new("q").unwrap()];
    let consumer =
        broker.consume(Consume { queues, name: "w".to_owned(), unsettled_max: 10_000 }).await.unwrap();
    let (mut left, mut number) = (accepted.len(), 0);
    while left > 0 {
        let commits: Vec<_> = consumer.receive(ROOM).await.unwrap().into_iter().map(ack).collect();
        left -= commits.len();
        number += 1;
        let committed = consumer.commit(&Batch { number, commits }).await.unwrap();
        assert!(committed.iter().all(|committed| *committed == Committed::Done));
    }
    // Draining alone frees the disk: pages of messages that are gone are given back.
    while broker.publish_all(batch(&[TaskId::generate()])).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(ballast.exists());
}
