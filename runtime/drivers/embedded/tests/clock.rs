//! Due times, leases and expiry on a clock that is fed, set ahead and set back.

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
use rwork_broker::{Broker, Consume, Consumer, Disposition, Publish, Route, Settled};
use rwork_embedded::{Clock, Embedded, Options};
use rwork_protocol::{Message, QueueName, Record, State, TaskId, Timestamp};

const HOUR: Duration = Duration::from_secs(3600);
const START: i64 = 1_795_000_000_000_000;
const LEASE: Duration = Duration::from_millis(100);

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
        Embedded::open(Options { path, clock, lease: LEASE, sweep_interval, ..Options::default() }).unwrap()
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

async fn body(consumer: &dyn Consumer) -> (Bytes, u32) {
    let delivery = consumer.receive(1).await.unwrap().remove(0);
    (delivery.message.body.clone(), delivery.delivery_count)
}

#[tokio::test]
async fn a_due_time_is_the_clocks() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let broker = clock.open(folder.path());
    let due = clock.now().plus(HOUR);
    broker.publish(vec![message("late", Some(due)), message("soon", None)]).await.unwrap();
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
    broker.publish(vec![message("later", None)]).await.unwrap();
    let consumer = consumer(&broker).await;
    let delivery = consumer.receive(1).await.unwrap().remove(0);
    let again = delivery.clone();
    let delay = Disposition::Delay(clock.now().plus(HOUR));
    let settled = consumer.settle(vec![delivery.settle(delay)]).await.unwrap();
    assert_eq!(settled, [Settled::Done]);
    let info = broker.queues().await.unwrap().remove(0);
    assert_eq!((info.ready, info.unsettled, info.delayed), (0, 0, 1));
    // Not ours any more: what is held back can't be ended by its old receipt.
    let late = consumer.settle(vec![again.settle(Disposition::Ack)]).await.unwrap();
    assert_eq!(late, [Settled::Lost]);
    clock.add(micros(HOUR));
    let due = consumer.receive(1).await.unwrap().remove(0);
    assert_eq!((&due.message.body[..], due.delivery_count, due.redelivered), (&b"later"[..], 1, false));
    // A time that has passed: at once.
    let now = Disposition::Delay(clock.now());
    assert_eq!(consumer.settle(vec![due.settle(now)]).await.unwrap(), [Settled::Done]);
    assert_eq!(body(&*consumer).await, (Bytes::from("later"), 1));
}

#[tokio::test]
async fn a_clock_set_back_does_not_keep_a_dead_workers_messages() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let doomed = clock.open(folder.path());
    doomed.publish(vec![message("held", None)]).await.unwrap();
    let held = consumer(&doomed).await;
    assert_eq!(body(&*held).await, (Bytes::from("held"), 1));
    drop((held, doomed));
    clock.add(-micros(HOUR));
    let broker = clock.open(folder.path());
    let consumer = consumer(&broker).await;
    let received = body(&*consumer);
    tokio::pin!(received);
    // A lease from now on, however far ahead the old end was; time goes on while we wait for it.
    let mut tick = tokio::time::interval(LEASE / 10);
    let (body, count) = loop {
        tokio::select! {
            received = &mut received => break received,
            _ = tick.tick() => clock.add(micros(LEASE / 10)),
        }
    };
    assert_eq!((body, count), (Bytes::from("held"), 2));
    assert!(clock.now() < Timestamp::from_micros(START), "the old end of the lease was waited for");
}

#[tokio::test]
async fn a_clock_set_ahead_does_not_take_from_the_living() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Fed::new();
    let (alive, other) = (clock.open(folder.path()), clock.open(folder.path()));
    alive.publish(vec![message("held", None)]).await.unwrap();
    let holding = consumer(&alive).await;
    let held = holding.receive(1).await.unwrap();
    let waiting = consumer(&other).await;
    // Both were looking when the clock leapt; the holder renews within its lease, as workers do.
    clock.add(micros(HOUR));
    other.publish(vec![message("after", None)]).await.unwrap();
    assert_eq!(body(&*waiting).await, (Bytes::from("after"), 1));
    holding.renew().await.unwrap();
    let acks = held.into_iter().map(|delivery| delivery.settle(rwork_broker::Disposition::Ack)).collect();
    assert_eq!(holding.settle(acks).await.unwrap(), [rwork_broker::Settled::Done]);
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
