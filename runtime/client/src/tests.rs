//! Against the embedded broker, in a file of each test's own.

use std::sync::Arc;
use std::time::Duration;

use rwork_backend::{ResultBackend, Store};
use rwork_broker::{Broker, Consume, Room};
use rwork_embedded::{Embedded, Options};
use rwork_protocol::{DecodeLimits, NewTask, QueueName, Record, State, TaskId, TaskName, Timestamp, decode};

use crate::{Client, Error};

struct World {
    client: Client,
    store: Arc<Embedded>,
    queue: QueueName,
    _dir: tempfile::TempDir,
}

fn world(options: Options) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(Options { path: dir.path().join("rwork.db"), ..options }).unwrap());
    let client = Client::new(store.clone(), store.clone()).with_origin("gen1@host");
    World { client, store, queue: QueueName::new("q").unwrap(), _dir: dir }
}

fn task(args: &str) -> NewTask {
    NewTask::new(TaskName::new("math.add").unwrap()).args(args.to_owned())
}

fn record(id: &TaskId, status: State) -> Store {
    Store {
        record: Record::new(id.clone(), status, "5"),
        expires: None,
        reply_to: None,
        correlation_id: None,
    }
}

impl World {
    /// What a worker on the queue is handed.
    async fn received(&self) -> Vec<(TaskId, String)> {
        let queues = vec![self.queue.clone()];
        let consumer =
            self.store.consume(Consume { queues, name: "w".to_owned(), unsettled_max: 10 }).await.unwrap();
        let deliveries = consumer.receive(Room { messages: 10, bytes: usize::MAX }).await.unwrap();
        let read = |delivery: &rwork_broker::Delivery| {
            let message = decode(&delivery.message, &DecodeLimits::default()).unwrap();
            assert_eq!(message.headers.origin.as_deref(), Some("gen1@host"));
            (message.headers.id, String::from_utf8(message.args.to_vec()).unwrap())
        };
        let received = deliveries.iter().map(read).collect();
        consumer.close(&[]).await.unwrap();
        received
    }
}

#[tokio::test]
async fn what_is_sent_is_what_a_worker_gets_in_order() {
    let world = world(Options::default());
    let one = world.client.send(task("[1]"), &world.queue).await.unwrap();
    let many = world.client.send_many(vec![task("[2]"), task("[3]")], &world.queue).await.unwrap();
    let expected = vec![
        (one, "[1]".to_owned()),
        (many[0].clone(), "[2]".to_owned()),
        (many[1].clone(), "[3]".to_owned()),
    ];
    assert_eq!(world.received().await, expected);
    assert_eq!(world.client.send_many(Vec::new(), &world.queue).await.unwrap(), []);
}

#[tokio::test]
async fn a_task_with_an_eta_is_held_back_by_the_broker() {
    let world = world(Options::default());
    let later = Timestamp::from_system(std::time::SystemTime::now()).plus(Duration::from_secs(3600));
    world.client.send(NewTask { eta: Some(later), ..task("[1]") }, &world.queue).await.unwrap();
    let queues = world.store.queues().await.unwrap();
    assert_eq!((queues[0].delayed, queues[0].ready), (1, 0));
}

#[tokio::test]
async fn waiting_ends_with_the_last_record() {
    let world = world(Options::default());
    let id = TaskId::generate();
    assert_eq!(world.client.result(&id).await.unwrap(), None);
    let waiting = world.client.wait(&id, None);
    let storing = async {
        world.store.store(vec![record(&id, State::Started)]).await.unwrap();
        world.store.store(vec![record(&id, State::Success)]).await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, storing);
    assert_eq!(waited.unwrap().status, State::Success);
    assert_eq!(world.client.wait(&id, None).await.unwrap().result, "5");
    assert_eq!(world.client.result(&id).await.unwrap().unwrap().status, State::Success);
    assert!(world.client.forget(&id).await.unwrap());
    assert!(!world.client.forget(&id).await.unwrap());
}

#[tokio::test]
async fn waiting_gives_up_in_time_and_says_what_it_saw() {
    let world = world(Options::default());
    let id = TaskId::new("slow").unwrap();
    let timeout = Duration::from_millis(50);
    let error = world.client.wait(&id, Some(timeout)).await.unwrap_err();
    assert_eq!(error.to_string(), "task `slow` was PENDING after 50ms, expected it to have ended");
    assert!(error.is_retryable() && error.hint().unwrap().contains("rwork queues"));
    world.store.store(vec![record(&id, State::Started)]).await.unwrap();
    // However slow the machine is, some attempt sees the record before it gives up.
    for _ in 0..100 {
        match world.client.wait(&id, Some(timeout)).await.unwrap_err() {
            Error::TimedOut { state: State::Started, .. } => return,
            Error::TimedOut { state: State::Pending, .. } => {}
            other => panic!("{other}"),
        }
    }
    panic!("STARTED was never seen");
}

#[tokio::test]
async fn what_cannot_be_sent_sends_nothing() {
    let world = world(Options { message_bytes_max: 2000, ..Options::default() });
    let error = world.client.send_many(vec![task("[1]"), task("oops")], &world.queue).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to build a message for `math.add`");
    let large = format!("[\"{}\"]", "x".repeat(3000));
    let error = world.client.send_many(vec![task("[1]"), task(&large)], &world.queue).await.unwrap_err();
    assert!(
        error.to_string().starts_with("expected a message for `math.add` of at most 2000 bytes, got "),
        "{error}"
    );
    assert!(!error.is_retryable());
    let queues = world.store.queues().await.unwrap();
    assert!(queues.iter().all(|queue| queue.ready == 0), "{queues:?}");
}
