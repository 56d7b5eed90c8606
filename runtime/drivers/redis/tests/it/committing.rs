//! Commits: records, follow-ups and ends in one step, each answering for itself.

use redis::AsyncCommands;
use rwork_backend::{ResultBackend, Store};
use rwork_broker::{Broker, Commit, Committed, Delivery, Disposition, Ending, Error, Part, Refusal};
use rwork_protocol::{Record, State, TaskId};
use rwork_redis::{Options, Redis, Role};

use crate::common::{Server, within};
use crate::peers::*;

fn id(number: usize) -> TaskId {
    TaskId::new(number.to_string()).unwrap()
}

fn record(number: usize, state: State, result: &str) -> Store {
    let record = Record::new(id(number), state, result.to_owned());
    Store { record, expires: None, reply_to: None, correlation_id: None }
}

fn acked(delivery: Delivery) -> Commit {
    ends(Ending::Settle(delivery.settle(Disposition::Ack)))
}

/// Results in another database under another prefix of the same server.
async fn both(server: &Server) -> (Redis, Redis) {
    let mut options = Options::parse(&server.url().replace("/0", "/1"), Role::Backend).unwrap();
    options.transport.global_keyprefix = "res.".to_owned();
    let results = Redis::connect(options).await.unwrap();
    let broker = connect(&server.url(), |_| {}).await;
    assert!(!broker.capabilities().commits_records);
    let broker = broker.with_results(&results);
    assert!(broker.capabilities().commits_records);
    (broker, results)
}

#[tokio::test]
async fn records_are_written_with_the_end_of_their_delivery() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let (broker, results) = both(&server).await;
    let consumer = consume(&broker, &["celery"]).await;
    broker.publish_all((0..4).map(|number| to("celery", number)).collect()).await.unwrap();
    let mut came = receive(&*consumer, 4).await;
    // Nobody's task, whose success was written before.
    results.store(vec![record(1, State::Success, "1")]).await.unwrap();
    let lost = came.remove(3);
    let stray = admin.hkeys::<_, Vec<String>>("unacked").await.unwrap();
    let stray = stray.iter().find(|tag| tag.ends_with(":4")).unwrap();
    let _: () = admin.hdel("unacked", stray).await.unwrap();
    let of = |delivery: Delivery, records| Commit { records, ..acked(delivery) };
    let [first, second, third] = <[Delivery; 3]>::try_from(came).unwrap();
    let receipt = lost.receipt;
    let answers = consumer
        .commit(&batch(vec![
            of(first, vec![record(0, State::Failure, "0")]),
            of(second, vec![record(1, State::Failure, "2")]),
            of(third, vec![record(2, State::Started, "null"), record(2, State::Success, "5")]),
            of(lost.clone(), vec![record(3, State::Failure, "3")]),
            Commit { records: vec![record(4, State::Success, "4")], ..ends(Ending::Holds(receipt)) },
            Commit { records: vec![record(5, State::Retry, "5")], ..ends(Ending::Unfenced) },
        ]))
        .await
        .unwrap();
    let (done, lost) = (Committed::Done, Committed::Lost);
    assert_eq!(answers, [done.clone(), done.clone(), done.clone(), lost.clone(), lost, done]);
    let found = results.get(&(0..6).map(id).collect::<Vec<_>>()).await.unwrap();
    let found: Vec<_> =
        found.iter().map(|record| record.as_ref().map(|record| record.status.as_str())).collect();
    let (success, none) = (Some("SUCCESS"), None);
    assert_eq!(found, [Some("FAILURE"), success, success, none, success, Some("RETRY")]);
    assert!(!keys(&mut admin).await.iter().any(|key| key.contains("meta")), "they are in the other database");
    assert!(unacked(&mut admin).await.is_empty());
    assert!(consumer.renew().await.unwrap());
}

/// Whatever serializer it was written with, a success is final.
#[tokio::test]
async fn a_success_of_another_worker_stays() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let redis = redis.with_results(&redis);
    let consumer = consume(&redis, &["celery"]).await;
    redis.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let packed = b"\x82\xa6status\xa7SUCCESS\xa6result\x05";
    let _: () = admin.set("celery-task-meta-0", packed).await.unwrap();
    let _: () = admin.set("celery-task-meta-1", b"\x82\xa6status\xa7STARTED\xa6result\x05").await.unwrap();
    let came = receive(&*consumer, 2).await;
    let commits = came.into_iter().enumerate().map(|(number, delivery)| Commit {
        records: vec![record(number, State::Failure, "1")],
        ..acked(delivery)
    });
    assert_eq!(consumer.commit(&batch(commits.collect())).await.unwrap(), vec![Committed::Done; 2]);
    assert_eq!(admin.get::<_, Vec<u8>>("celery-task-meta-0").await.unwrap(), packed);
    assert!(admin.get::<_, String>("celery-task-meta-1").await.unwrap().contains("FAILURE"));
}

/// One that can never be done stops no other, and says which part it was.
#[tokio::test]
async fn each_item_answers_for_itself() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let redis = redis.with_results(&redis);
    let consumer = consume(&redis, &["celery", "odd"]).await;
    redis.publish_all((0..4).map(|number| to("celery", number)).collect()).await.unwrap();
    redis.publish_all(vec![to("odd", 4)]).await.unwrap();
    let mut came = receive(&*consumer, 5).await;
    came.sort_by_key(|delivery| numbers(std::slice::from_ref(delivery))[0]);
    let _: () = admin.set("bad", "a string").await.unwrap();
    let _: () = admin.set("odd", "a string").await.unwrap();
    let mut nowhere = to("unused", 7);
    nowhere.route.exchange = "nowhere".to_owned();
    let mut came = came.into_iter();
    let mut next = || came.next().unwrap();
    let batch = batch(vec![
        Commit { publish: vec![to("next", 10)], ..acked(next()) },
        Commit {
            publish: vec![to("next", 11), to("bad", 12)],
            records: vec![record(1, State::Success, "1")],
            ..acked(next())
        },
        Commit { publish: vec![nowhere], ..acked(next()) },
        Commit { publish: vec![to("next", 13)], ..acked(next()) },
        ends(Ending::Settle(next().settle(Disposition::Requeue))),
    ]);
    let answers = consumer.commit(&batch).await.unwrap();
    let part = |answer: &Committed| match answer {
        Committed::Refused(Refusal { part, why }) => Some((*part, why.clone())),
        _ => None,
    };
    let parts: Vec<_> = answers.iter().map(part).collect();
    assert_eq!((&parts[0], &parts[3]), (&None, &None), "{answers:?}");
    let why = "expected `bad` to be a list, found a string".to_owned();
    assert_eq!(parts[1], Some((Part::FollowUp, why)));
    assert_eq!(parts[2].as_ref().unwrap().0, Part::FollowUp);
    assert_eq!(parts[4].as_ref().unwrap().0, Part::Settlement);
    // Nothing of what was refused was done.
    assert_eq!(list(&mut admin, "next").await.len(), 2);
    assert_eq!(redis.get(&[id(1)]).await.unwrap(), [None]);
    assert_eq!(unacked(&mut admin).await.len(), 3);
    let bound: bool = admin.exists("_kombu.binding.next").await.unwrap();
    assert!(bound, "its queue is known to whoever lists queues");
}

/// Full memory: what frees about what it adds is done, what is larger waits, unchanged.
#[tokio::test]
async fn results_are_stored_while_memory_is_full() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let redis = connect(&server.url(), |_| {}).await;
    let redis = redis.with_results(&redis);
    redis.publish_all((0..200).map(|number| to("celery", number)).collect()).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    let set = async |admin: &mut Admin, most: u64| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(most).exec_async(admin).await.unwrap();
    };
    // More than 16 MiB beyond its limit.
    let _: () = admin.set("ballast", vec![0_u8; 20 << 20]).await.unwrap();
    set(&mut admin, 1).await;
    let mut came = receive(&*consumer, 200).await;
    let large = came.pop().unwrap();
    let commit = |delivery: Delivery, size: usize| {
        let result = format!("\"{}\"", "x".repeat(size));
        let number = numbers(std::slice::from_ref(&delivery))[0];
        Commit {
            records: vec![record(number, State::Success, &result)],
            publish: vec![to("next", number)],
            ..acked(delivery)
        }
    };
    let small: Vec<Commit> =
        came.into_iter().map(|delivery| Commit { publish: vec![], ..commit(delivery, 10) }).collect();
    let count = small.len();
    assert_eq!(consumer.commit(&batch(small)).await.unwrap(), vec![Committed::Done; count]);
    let large = batch(vec![commit(large, 1 << 20)]);
    for _ in 0..2 {
        let full = within("commit", consumer.commit(&large)).await;
        assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    }
    assert!(consumer.renew().await.unwrap());
    assert_eq!(unacked(&mut admin).await.len(), 1);
    set(&mut admin, 0).await;
    assert_eq!(consumer.commit(&large).await.unwrap(), [Committed::Done]);
    assert_eq!(list(&mut admin, "next").await.len(), 1);
}

/// Rights that are missing refuse the call before anything is done.
#[tokio::test]
async fn missing_rights_change_nothing() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let mut user = redis::cmd("ACL");
    let rights =
        ["SETUSER", "few", "on", ">pw", "resetkeys", "%RW~*celery*", "~rwork*", "~unacked*", "&*", "+@all"];
    user.arg(&rights).exec_async(&mut admin).await.unwrap();
    let redis = connect(&server.url().replace("redis://", "redis://few:pw@"), |_| {}).await;
    redis.publish_all(vec![to("celery", 0)]).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 1).await;
    let before = unacked(&mut admin).await;
    let mut commit = acked(came[0].clone());
    commit.publish = vec![to("forbidden", 1)];
    let refused = consumer.commit(&batch(vec![commit])).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_eq!(unacked(&mut admin).await, before);
    assert_eq!(settle(&*consumer, came, Disposition::Ack).await, [Committed::Done]);
}
