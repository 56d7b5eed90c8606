//! Contents of the file about consumers: numbers and answers, starts, marks, and what stands after a lost answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::Connection;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Consumer, Delivery, Disposition, Ending, Error, Part, Publish,
    Receipt, Refusal, Resumed, Room, Route,
};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{Message, QueueName, Record, State, TaskId};

const ROOM: Room = Room { messages: 10, bytes: usize::MAX };
/// Only ends a test that would hang.
const HANG: Duration = Duration::from_secs(60);

struct Site {
    _folder: tempfile::TempDir,
    path: PathBuf,
    broker: Embedded,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rwork.db");
        let broker = open(&path);
        Self { _folder: folder, path, broker }
    }

    async fn publish(&self, bodies: &[&'static str]) {
        self.broker.publish_all(bodies.iter().map(|body| message(body)).collect()).await.unwrap();
    }

    async fn consume(&self) -> Box<dyn Consumer> {
        consume(&self.broker).await
    }

    fn sql(&self, sql: &str) {
        Connection::open(&self.path).unwrap().execute_batch(sql).unwrap();
    }
}

fn open(path: &Path) -> Embedded {
    Embedded::open(Options { path: path.to_owned(), message_bytes_max: 1000, ..Options::default() }).unwrap()
}

async fn consume(broker: &Embedded) -> Box<dyn Consumer> {
    let queues = vec![QueueName::new("q").unwrap()];
    broker.consume(Consume { queues, name: "w".to_owned(), unsettled_max: 100 }).await.unwrap()
}

fn message(body: &'static str) -> Publish {
    let message = Message { body: Bytes::from_static(body.as_bytes()), ..Message::default() };
    Publish { route: Route::queue(&QueueName::new("q").unwrap()), message, not_before: None }
}

fn large() -> Publish {
    let mut large = message("");
    large.message.body = Bytes::from(vec![0; 2000]);
    large
}

fn record(id: &TaskId, status: State) -> Store {
    let record = Record {
        task_id: id.clone(),
        status,
        result: Bytes::from_static(b"1"),
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

fn ending(ending: Ending) -> Commit {
    Commit { records: Vec::new(), publish: Vec::new(), ending }
}

fn settle(delivery: &Delivery, how: Disposition) -> Commit {
    ending(Ending::Settle(delivery.clone().settle(how)))
}

fn batch(number: u64, commits: impl IntoIterator<Item = Commit>) -> Batch {
    Batch { number, commits: commits.into_iter().collect() }
}

async fn one(consumer: &dyn Consumer) -> Delivery {
    let mut came = tokio::time::timeout(HANG, consumer.receive(ROOM)).await.unwrap().unwrap();
    assert_eq!(came.len(), 1);
    came.remove(0)
}

fn marks(delivery: &Delivery) -> (&[u8], bool, u32) {
    (&delivery.message.body, delivery.redelivered, delivery.delivery_count)
}

#[tokio::test]
async fn a_batch_is_applied_once_and_a_lower_number_never() {
    let site = Site::new();
    site.publish(&["a", "b"]).await;
    let consumer = site.consume().await;
    let held = consumer.receive(ROOM).await.unwrap();
    let first = Commit { publish: vec![message("next")], ..settle(&held[0], Disposition::Ack) };
    let second = Commit { publish: vec![large()], ..settle(&held[1], Disposition::Ack) };
    let outcomes = batch(7, [first, second]);
    let why = "expected a message of at most 1000 bytes, got 2000".to_owned();
    let answers = [Committed::Done, Committed::Refused(Refusal { part: Part::FollowUp, why })];
    for _ in 0..2 {
        assert_eq!(consumer.commit(&outcomes).await.unwrap(), answers);
    }
    let info = site.broker.queues().await.unwrap().remove(0);
    assert_eq!((info.ready, info.unsettled), (1, 1));
    let lower = consumer.commit(&batch(6, [ending(Ending::Unfenced)])).await;
    assert!(matches!(lower, Err(Error::LeaseLost { .. })), "{lower:?}");
    let again = consumer.commit(&batch(8, [settle(&held[0], Disposition::Ack)])).await.unwrap();
    assert_eq!(again, [Committed::Lost]);
}

#[tokio::test]
async fn what_is_not_ours_changes_nothing_but_a_success() {
    let site = Site::new();
    let consumer = site.consume().await;
    let (failed, succeeded) = (TaskId::generate(), TaskId::generate());
    let lost = Ending::Holds(Receipt(99));
    let commit = Commit {
        records: vec![record(&failed, State::Failure), record(&succeeded, State::Success)],
        publish: vec![message("next")],
        ending: lost,
    };
    assert_eq!(consumer.commit(&batch(1, [commit])).await.unwrap(), [Committed::Lost]);
    let records = site.broker.get(&[failed, succeeded]).await.unwrap();
    assert_eq!(records.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert_eq!(site.broker.queues().await.unwrap()[0].ready, 0);
}

#[tokio::test]
async fn starts_are_counted_and_deaths_are_marked() {
    let site = Site::new();
    site.publish(&["a"]).await;
    let consumer = site.consume().await;
    let first = one(&*consumer).await;
    assert_eq!(marks(&first), (&b"a"[..], false, 1));
    // Dropped without a word: dead.
    drop(consumer);
    let consumer = site.consume().await;
    let second = one(&*consumer).await;
    assert_eq!(marks(&second), (&b"a"[..], true, 1));
    let starting = batch(1, [ending(Ending::Starting(second.receipt))]);
    for _ in 0..2 {
        assert_eq!(consumer.commit(&starting).await.unwrap(), [Committed::Done]);
    }
    drop(consumer);
    let consumer = site.consume().await;
    let third = one(&*consumer).await;
    assert_eq!(marks(&third), (&b"a"[..], true, 2));
    // Never started: as it was.
    consumer.commit(&batch(1, [settle(&third, Disposition::Release)])).await.unwrap();
    let third = one(&*consumer).await;
    assert_eq!(marks(&third), (&b"a"[..], true, 2));
    site.publish(&["b"]).await;
    consumer.commit(&batch(2, [settle(&third, Disposition::Requeue)])).await.unwrap();
    let came = consumer.receive(ROOM).await.unwrap();
    assert_eq!(came.iter().map(marks).collect::<Vec<_>>(), [(&b"b"[..], false, 1), (&b"a"[..], true, 3)]);
}

#[tokio::test]
async fn closing_marks_what_may_have_begun() {
    let site = Site::new();
    site.publish(&["a", "b"]).await;
    let consumer = site.consume().await;
    let held = consumer.receive(ROOM).await.unwrap();
    consumer.close(&[held[1].receipt]).await.unwrap();
    consumer.close(&[]).await.unwrap();
    let consumer = site.consume().await;
    let came = consumer.receive(ROOM).await.unwrap();
    assert_eq!(came.iter().map(marks).collect::<Vec<_>>(), [(&b"a"[..], false, 1), (&b"b"[..], true, 1)]);
}

#[tokio::test]
async fn resuming_tells_what_is_new_and_what_is_gone() {
    let site = Site::new();
    site.publish(&["a", "b"]).await;
    let consumer = site.consume().await;
    let held = consumer.receive(ROOM).await.unwrap();
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Stands { fresh: vec![], gone: vec![] });
    // As if the answer of a taking had been lost, and data with it.
    site.publish(&["c"]).await;
    site.sql("UPDATE msg SET owner = (SELECT owner FROM session) WHERE body = CAST('c' AS BLOB)");
    site.sql("DELETE FROM msg WHERE body = CAST('a' AS BLOB)");
    let Resumed::Stands { fresh, gone } = consumer.resume().await.unwrap() else { panic!("it stands") };
    assert_eq!(fresh.iter().map(marks).collect::<Vec<_>>(), [(&b"c"[..], false, 1)]);
    assert_eq!(gone, [held[0].receipt]);
    let acks = batch(1, [settle(&held[1], Disposition::Ack), settle(&fresh[0], Disposition::Ack)]);
    assert_eq!(consumer.commit(&acks).await.unwrap(), [Committed::Done, Committed::Done]);

    site.sql("DELETE FROM session");
    assert!(!consumer.renew().await.unwrap());
    let lost = consumer.commit(&batch(2, [ending(Ending::Unfenced)])).await;
    assert!(matches!(lost, Err(Error::LeaseLost { .. })), "{lost:?}");
    site.publish(&["d"]).await;
    assert!(matches!(consumer.receive(ROOM).await, Err(Error::LeaseLost { .. })));
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Dead);
}

#[tokio::test]
async fn a_lock_file_that_was_deleted_is_made_again() {
    let site = Site::new();
    site.publish(&["a"]).await;
    let consumer = site.consume().await;
    let held = one(&*consumer).await;
    std::fs::remove_dir_all(site.path.with_file_name("rwork.db-consumers")).unwrap();
    assert!(!consumer.renew().await.unwrap());
    // Others look before and after it is made again.
    drop(site.consume().await);
    assert_eq!(consumer.resume().await.unwrap(), Resumed::Stands { fresh: vec![], gone: vec![] });
    assert!(consumer.renew().await.unwrap());
    drop(site.consume().await);
    let ack = batch(1, [settle(&held, Disposition::Ack)]);
    assert_eq!(consumer.commit(&ack).await.unwrap(), [Committed::Done]);
}

#[tokio::test]
async fn bytes_are_obeyed_and_a_refused_message_stops_no_other() {
    let site = Site::new();
    let mut elsewhere = message("x");
    elsewhere.route.exchange = "logs".to_owned();
    let batch = vec![message("aaaa"), large(), message("bbbb"), elsewhere, message("cccc")];
    let outcomes = site.broker.publish(batch).await.unwrap();
    assert!(matches!(
        outcomes[..],
        [Ok(()), Err(Error::TooLarge { .. }), Ok(()), Err(Error::Unsupported { .. }), Ok(())]
    ));
    let consumer = site.consume().await;
    for (bytes, expected) in [(5, 2), (1, 1)] {
        let came = consumer.receive(Room { messages: 10, bytes }).await.unwrap();
        assert_eq!(came.len(), expected);
    }
}

#[tokio::test]
async fn a_file_of_the_first_edition_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("first_edition.sql")).unwrap();
    old.execute_batch(
        "PRAGMA journal_mode = WAL;
         INSERT INTO queue(name) VALUES('q');
         INSERT INTO session(owner, until, lease, name) VALUES(5, 1, 20000, 'old');
         INSERT INTO msg(queue, prio, owner, tries, headers, content_type, content_encoding, body)
           VALUES('q', 0, 5, 2, x'', '', '', CAST('held' AS BLOB));",
    )
    .unwrap();
    let broker = open(&path);
    let consumer = consume(&broker).await;
    // A first-edition process that is still there publishes, and looks for leases that ran out.
    old.execute_batch(
        "INSERT INTO msg(queue, prio, headers, content_type, content_encoding, body)
           VALUES('q', 0, x'', '', '', CAST('new' AS BLOB));",
    )
    .unwrap();
    let reaped = old.query_row(
        "SELECT count(*) FROM session WHERE owner <> 5 AND (until <= ?1 OR until > ?1 + lease)",
        [1_800_000_000_000_000_i64],
        |row| row.get::<_, i64>(0),
    );
    assert_eq!(reaped.unwrap(), 0, "the first edition would end our session");
    let mut came = Vec::new();
    while came.len() < 2 {
        came.extend(tokio::time::timeout(HANG, consumer.receive(ROOM)).await.unwrap().unwrap());
    }
    assert_eq!(
        came.iter().map(marks).collect::<Vec<_>>(),
        [(&b"new"[..], false, 1), (&b"held"[..], true, 3)]
    );
}

#[tokio::test]
async fn a_million_messages_are_counted_within_a_moment() {
    let site = Site::new();
    site.sql(
        "INSERT INTO queue(name) VALUES('celery');
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
         INSERT INTO msg(queue, prio, headers, content_type, content_encoding, body)
           SELECT 'celery', 0, zeroblob(100), 'application/json', 'utf-8', zeroblob(100) FROM n",
    );
    // The best of some: the machine may be busy.
    let mut best = HANG;
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(site.broker.queues().await.unwrap()[0].ready, 1_000_000);
        best = best.min(began.elapsed());
    }
    println!("  {best:?}");
    assert!(best < Duration::from_millis(100), "{best:?}");
}
