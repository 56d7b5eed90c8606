//! Clients that subscribe after their record was published: a stock Celery client awaits neither SUBSCRIBE nor GET.

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use rwork_backend::{ResultBackend, Store, Stored};
use rwork_protocol::{Record, State, TaskId};

use crate::common::{Server, broker, within};

fn store(name: &str, state: State) -> Store {
    let record = Record::new(TaskId::new(name).unwrap(), state, "1");
    Store { record, expires: None, reply_to: None, correlation_id: None }
}

/// Questions that were asked for subscribers.
async fn questions(admin: &mut MultiplexedConnection) -> usize {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(admin).await.unwrap();
    let calls = |line: &str| line.split(['=', ',']).nth(1).unwrap().parse().unwrap();
    stats.lines().find(|line| line.starts_with("cmdstat_pubsub|numsub:")).map_or(0, calls)
}

async fn hears(server: &Server, name: &str) -> Record {
    let client = redis::Client::open(server.url()).unwrap();
    let (mut subscriber, mut heard) = client.get_async_pubsub().await.unwrap().split();
    subscriber.subscribe(format!("celery-task-meta-{name}")).await.unwrap();
    let message = within("a late subscriber", heard.next()).await.unwrap();
    Record::decode(&message.get_payload_bytes().to_vec().into()).unwrap()
}

#[tokio::test]
async fn who_subscribes_after_the_publication_is_told() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    // Fault 13: SUBSCRIBE arrives between the storing and nothing else.
    assert_eq!(redis.store(vec![store("a", State::Success)]).await.unwrap(), [Stored::Written]);
    assert_eq!(hears(&server, "a").await.status, State::Success);

    // After the first look there is a second one.
    let mut admin = server.admin().await;
    let before = questions(&mut admin).await;
    assert_eq!(redis.store(vec![store("b", State::Failure)]).await.unwrap(), [Stored::Written]);
    within("the first look", async { while questions(&mut admin).await == before {} }).await;
    assert_eq!(hears(&server, "b").await.status, State::Failure);
}

#[tokio::test]
async fn what_stands_then_is_told() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    redis.store(vec![store("a", State::Failure)]).await.unwrap();
    redis.store(vec![store("a", State::Success)]).await.unwrap();
    assert_eq!(hears(&server, "a").await.status, State::Success);
}

#[tokio::test]
async fn many_records_share_a_question_and_states_between_ask_none() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    redis.store(vec![store("s", State::Started)]).await.unwrap();
    let batch = (0..500).map(|nth| store(&format!("{nth}"), State::Success)).collect();
    redis.store(batch).await.unwrap();
    within("both looks", async { while questions(&mut admin).await < 2 {} }).await;
    let asked: String = redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
    assert!(asked.contains("cmdstat_pubsub|numsub:calls=2,"), "{asked}");
}

#[tokio::test]
async fn a_user_who_may_not_publish_stores_results() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let rules = ["SETUSER", "u", "on", ">pw", "~*", "+@all", "resetchannels"];
    redis::cmd("ACL").arg(&rules).exec_async(&mut admin).await.unwrap();
    let redis = broker(&format!("redis://u:pw@127.0.0.1:{}/0", server.port)).await.unwrap();
    let batch = vec![store("a", State::Success), store("b", State::Success)];
    assert_eq!(redis.store(batch).await.unwrap(), [Stored::Written; 2]);
}

#[tokio::test]
async fn a_key_of_another_type_is_replaced_and_harms_no_other() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let mut push = redis::cmd("LPUSH");
    push.arg("celery-task-meta-a").arg("x").exec_async(&mut admin).await.unwrap();
    let batch = vec![store("a", State::Success), store("b", State::Success)];
    assert_eq!(redis.store(batch).await.unwrap(), [Stored::Written; 2]);
}
