//! Results that are messages (`celery-wire.md` §4.8, item 49 of §10).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rwork_amqp::{Amqp, Error, Options, Role};
use rwork_backend::{ResultBackend, Store, Stored};
use rwork_broker::{Broker, Consume, Consumer, Disposition};
use rwork_client::Client;
use rwork_protocol::{NewTask, QueueName, Record, State, TaskId, TaskName};
use tokio::time::timeout;

use crate::connecting::connect;
use crate::place::{room, settle};
use crate::rabbitmq::RabbitServer;

/// A wait that is longer has no end.
const HANG: Duration = Duration::from_secs(30);

fn record(id: &TaskId, status: State) -> Record {
    Record::new(id.clone(), status, &b"1"[..])
}

fn store(record: Record, reply_to: &str) -> Store {
    Store { record, expires: None, reply_to: Some(reply_to.to_owned()), correlation_id: None }
}

/// A connection of the test's own, past everything that is tested.
async fn celerys_client(url: &str, queue: &str) -> (Connection, lapin::Consumer) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
    (connection, consumer)
}

#[tokio::test]
async fn item_49_a_reply_arrives_with_the_right_correlation_id() {
    let server = RabbitServer::shared();
    let url = server.url(&server.fresh_vhost().await.unwrap());
    let (_connection, mut replies) = celerys_client(&url, "me").await;
    let amqp = connect(&url).await;
    let id = TaskId::new("task-1").unwrap();
    let started = store(record(&id, State::Started), "me");
    let named =
        Store { correlation_id: Some("other".to_owned()), ..store(record(&id, State::Success), "me") };
    assert_eq!(amqp.store(vec![started, named]).await.unwrap(), [Stored::Written; 2]);
    for (correlation_id, status) in [("task-1", State::Started), ("other", State::Success)] {
        let delivery = timeout(HANG, replies.next()).await.unwrap().unwrap().unwrap();
        let properties = &delivery.properties;
        assert_eq!(properties.correlation_id().as_ref().map(|id| id.as_str()), Some(correlation_id));
        assert_eq!(properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
        assert_eq!(properties.content_encoding().as_ref().map(|kind| kind.as_str()), Some("utf-8"));
        assert_eq!((*properties.delivery_mode(), *properties.priority()), (Some(1), Some(0)));
        assert_eq!(*properties.headers(), None, "no headers");
        let record = Record::decode(&delivery.data.into()).unwrap();
        assert_eq!((record.task_id, record.status), (id.clone(), status));
    }
}

#[tokio::test]
async fn item_49_nothing_is_published_when_reply_to_is_empty() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let (_connection, mut replies) = celerys_client(&server.url(&vhost), "me").await;
    let amqp = connect(&server.url(&vhost)).await;
    let (silent, told) = (TaskId::generate(), TaskId::generate());
    let nowhere = Store { reply_to: None, ..store(record(&silent, State::Success), "") };
    amqp.store(vec![store(record(&silent, State::Success), ""), nowhere]).await.unwrap();
    // A client that is gone is no error either.
    amqp.store(vec![store(record(&silent, State::Success), "gone")]).await.unwrap();
    amqp.store(vec![store(record(&told, State::Success), "me")]).await.unwrap();
    let delivery = timeout(HANG, replies.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(Record::decode(&delivery.data.into()).unwrap().task_id, told);
    let queues: Vec<String> =
        server.queues(&vhost).await.unwrap().into_iter().map(|queue| queue.name).collect();
    assert_eq!(queues, ["me"], "the worker declares nothing");
}

#[tokio::test]
async fn results_survive_a_restart_if_they_are_to() {
    let server = RabbitServer::shared();
    let url = server.url(&server.fresh_vhost().await.unwrap());
    let (_connection, mut replies) = celerys_client(&url, "me").await;
    let mut options = Options::parse(&url, Role::Backend).unwrap();
    options.result_persistent = true;
    let amqp = Amqp::connect(options).await.unwrap();
    amqp.store(vec![store(record(&TaskId::generate(), State::Success), "me")]).await.unwrap();
    let delivery = timeout(HANG, replies.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(*delivery.properties.delivery_mode(), Some(2));
}

#[tokio::test]
async fn results_come_back_to_whoever_sent() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let (worker, caller) = (connect(&server.url(&vhost)).await, connect(&server.url(&vhost)).await);
    let queue = caller.reply_to().await.unwrap().unwrap();
    assert_eq!(caller.reply_to().await.unwrap().as_deref(), Some(queue.as_str()), "one queue for all");
    let declared = server.queues(&vhost).await.unwrap();
    assert_eq!(declared.len(), 1);
    assert!(declared[0].durable && declared[0].auto_delete, "as Celery's clients do: {declared:?}");
    assert_eq!(declared[0].arguments, serde_json::json!({"x-expires": 86_400_000}));

    let id = TaskId::generate();
    assert_eq!(caller.get(std::slice::from_ref(&id)).await.unwrap(), [None]);
    let mut watched = caller.watch(&id).await.unwrap();
    for state in [State::Started, State::Retry, State::Success] {
        worker.store(vec![store(record(&id, state.clone()), &queue)]).await.unwrap();
        let came = timeout(HANG, watched.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(came.status, state);
    }
    assert!(timeout(HANG, watched.next()).await.unwrap().is_none(), "it has ended");
    assert_eq!(
        caller.get(std::slice::from_ref(&id)).await.unwrap()[0].as_ref().unwrap().status,
        State::Success
    );
    assert!(caller.forget(&id).await.unwrap() && !caller.forget(&id).await.unwrap());

    // Over another connection, too.
    server.close_connections(&vhost, "maintenance").await.unwrap();
    let id = TaskId::generate();
    let mut watched = caller.watch(&id).await.unwrap();
    let come = async {
        loop {
            // Its queue went with its connection: what came too early is lost, as with Celery.
            let sent = worker.store(vec![store(record(&id, State::Success), &queue)]).await;
            assert!(sent.as_ref().err().is_none_or(Error::is_retryable), "{sent:?}");
            if let Ok(came) = timeout(Duration::from_millis(50), watched.next()).await {
                break came.unwrap().unwrap();
            }
        }
    };
    assert_eq!(timeout(HANG, come).await.unwrap().status, State::Success);
}

/// Takes one task and answers it, as a worker does.
async fn answer_one(consumer: &dyn Consumer, results: &Amqp) {
    let delivery = consumer.receive(room(1)).await.unwrap().remove(0);
    let properties = delivery.message.properties.clone();
    let id = TaskId::new(properties.correlation_id.clone().unwrap()).unwrap();
    let store = Store {
        record: record(&id, State::Success),
        expires: None,
        reply_to: properties.reply_to,
        correlation_id: properties.correlation_id,
    };
    results.store(vec![store]).await.unwrap();
    settle(consumer, vec![delivery], &Disposition::Ack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_rworks_own_gets_its_results() {
    let server = RabbitServer::shared();
    let url = server.url(&server.fresh_vhost().await.unwrap());
    let (worker, caller) = (connect(&url).await, Arc::new(connect(&url).await));
    let queue = QueueName::new("celery").unwrap();
    let options = Consume { queues: vec![queue.clone()], name: "w@host".to_owned(), unsettled_max: 4 };
    let consumer = worker.consume(options).await.unwrap();
    let client = Client::new(caller.clone(), caller);
    let task = || NewTask::new(TaskName::new("shop.add").unwrap());
    for _ in 0..3 {
        let id = client.send(task(), &queue).await.unwrap();
        answer_one(&*consumer, &worker).await;
        assert_eq!(client.wait(&id, Some(HANG)).await.unwrap().status, State::Success);
    }
    let ids = client.send_many(vec![task(), task()], &queue).await.unwrap();
    for id in &ids {
        answer_one(&*consumer, &worker).await;
        assert_eq!(client.wait(id, Some(HANG)).await.unwrap().status, State::Success);
    }
}

#[tokio::test]
async fn results_of_others_can_not_be_read() {
    let server = RabbitServer::shared();
    let amqp = connect(&server.url(&server.fresh_vhost().await.unwrap())).await;
    let id = TaskId::generate();
    for refusal in [amqp.get(std::slice::from_ref(&id)).await.map(drop), amqp.watch(&id).await.map(drop)] {
        let error = refusal.unwrap_err();
        assert!(matches!(&error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("with `rpc://` they go to their sender alone"), "{error}");
    }
}

#[tokio::test]
async fn a_result_beyond_the_limit_is_refused() {
    let server = RabbitServer::shared();
    let mut options =
        Options::parse(&server.url(&server.fresh_vhost().await.unwrap()), Role::Backend).unwrap();
    options.message_bytes_max = 1000;
    let amqp = Amqp::connect(options).await.unwrap();
    let large = Record::new(TaskId::generate(), State::Success, format!("\"{}\"", "x".repeat(1000)));
    let refusal = amqp.store(vec![store(large, "me")]).await.unwrap_err();
    assert!(matches!(refusal, Error::TooLarge { limit: 1000, size } if size > 1000), "{refusal}");
}
