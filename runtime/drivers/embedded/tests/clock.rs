//! Due times and expiry on a clock that is fed, set ahead and set back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{
    Batch, Broker, Commit, Committed, Consume, Consumer, Delivery, Disposition, Ending, Publish, Room, Route,
};
use rwork_embedded::{Clock, Embedded, Options};
use rwork_protocol::{Message, QueueName, Record, State, TaskId, Timestamp};

const HOUR: Duration = Duration::from_secs(3600);
const START: i64 = 1_795_000_000_000_000;
const ROOM: Room = Room { messages: 1, bytes: usize::MAX };

struct Fed(Arc<AtomicI64>);

impl Fed {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn add(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    fn open(&self, folder: &Path) -> Embedded {
        let now = Arc::clone(&self.0);
        let clock = Clock::new(move || Timestamp::from_micros(now.load(Ordering::SeqCst)));
        let sweep_interval = Duration::from_millis(20);
        let path = folder.join("rwork.db");
        Embedded::open(Options { path, clock, sweep_interval, ..Options::default() }).unwrap()
    }
}

fn micros(duration: Duration) -> i64 {
    duration.as_micros().try_into().unwrap()
}

fn message(body: &'static str, not_before: Option<Timestamp>) -> Publish {
    let message = Message { body: Bytes::from_static(body.as_bytes()), ..Message::default() };
    Publish { route: Route::queue(&QueueName::new("q").unwrap()), message, not_before }
}

async fn consumer(broker: &Embedded) -> Box<dyn Consumer> {
    let queues = vec![QueueName::new("q").unwrap()];
    broker.consume(Consume { queues, name: "w".to_owned(), unsettled_max: 10 }).await.unwrap()
}

async fn end(consumer: &dyn Consumer, number: u64, delivery: Delivery, how: Disposition) -> Committed {
    let ending = Ending::Settle(delivery.settle(how));
    let commits = vec![Commit { records: Vec::new(), publish: Vec::new(), ending }];
    consumer.commit(&Batch { number, commits }).await.unwrap().remove(0)
}

async fn body(consumer: &dyn Consumer) -> (Bytes, u32) {
    let delivery = consumer.receive(ROOM).await.unwrap().remove(0);
    (delivery.message.body.clone(), delivery.delivery_count)
}

#[tokio::test]
async fn a_due_time_is_the_clocks() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let broker = clock.open(folder.path());
    let due = clock.now().plus(HOUR);
    broker.publish_all(vec![message("late", Some(due)), message("soon", None)]).await.unwrap();
    let consumer = consumer(&broker).await;
    assert_eq!(body(&*consumer).await.0, "soon");
    let info = broker.queues().await.unwrap().remove(0);
    assert_eq!((info.ready, info.unsettled, info.delayed), (0, 1, 1));
    clock.add(micros(HOUR));
    assert_eq!(body(&*consumer).await.0, "late");
}

#[tokio::test]
async fn a_delivery_that_is_not_due_goes_back_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let broker = clock.open(folder.path());
    broker.publish_all(vec![message("later", None)]).await.unwrap();
    let consumer = consumer(&broker).await;
    let delivery = consumer.receive(ROOM).await.unwrap().remove(0);
    let again = delivery.clone();
    let delay = Disposition::Delay(clock.now().plus(HOUR));
    assert_eq!(end(&*consumer, 1, delivery, delay).await, Committed::Done);
    let info = broker.queues().await.unwrap().remove(0);
    assert_eq!((info.ready, info.unsettled, info.delayed), (0, 0, 1));
    // Not ours any more: what is held back can't be ended by its old receipt.
    assert_eq!(end(&*consumer, 2, again, Disposition::Ack).await, Committed::Lost);
    clock.add(micros(HOUR));
    let due = consumer.receive(ROOM).await.unwrap().remove(0);
    assert_eq!((&due.message.body[..], due.delivery_count, due.redelivered), (&b"later"[..], 1, false));
    // A time that has passed: at once.
    let now = Disposition::Delay(clock.now());
    assert_eq!(end(&*consumer, 3, due, now).await, Committed::Done);
    assert_eq!(body(&*consumer).await, (Bytes::from("later"), 1));
}

#[tokio::test]
async fn no_clock_ends_a_consumer() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let (alive, other) = (clock.open(folder.path()), clock.open(folder.path()));
    alive.publish_all(vec![message("held", None)]).await.unwrap();
    let holding = consumer(&alive).await;
    let held = holding.receive(ROOM).await.unwrap().remove(0);
    for leap in [micros(HOUR), -2 * micros(HOUR)] {
        clock.add(leap);
        // Looks for the dead when it starts.
        let waiting = consumer(&other).await;
        other.publish_all(vec![message("after", None)]).await.unwrap();
        assert_eq!(body(&*waiting).await, (Bytes::from("after"), 1));
        waiting.close(&[]).await.unwrap();
        let after = holding.receive(ROOM).await.unwrap().remove(0);
        assert_eq!(end(&*holding, 1 + u64::from(leap < 0), after, Disposition::Ack).await, Committed::Done);
    }
    assert!(holding.renew().await.unwrap());
    assert_eq!(end(&*holding, 3, held, Disposition::Ack).await, Committed::Done);
}

#[tokio::test]
async fn expired_results_are_deleted_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let backend = clock.open(folder.path());
    let store = |expires| Store {
        record: Record {
            task_id: TaskId::generate(),
            status: State::Success,
            result: Bytes::from_static(b"1"),
            traceback: None,
            children: None,
            date_done: None,
            group_id: None,
            parent_id: None,
            component: None,
            extended: None,
            other: Vec::new(),
        },
        expires,
        reply_to: None,
        correlation_id: None,
    };
    // More than one sweep deletes.
    let batch = (0..1200).map(|_| store(Some(HOUR))).chain([store(None)]).collect();
    backend.store(batch).await.unwrap();
    // Consumers' processes sweep.
    let _consumer = consumer(&backend).await;
    let db = Connection::open(folder.path().join("rwork.db")).unwrap();
    let count = || db.query_row("SELECT count(*) FROM result", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 1201);
    clock.add(micros(HOUR));
    let swept = async {
        while count() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept).await.expect("results that expired are kept");
    assert_eq!(count(), 1);
}
