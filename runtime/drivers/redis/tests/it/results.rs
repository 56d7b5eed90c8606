//! Records as Celery's clients read and write them, and watching them through outages.

use std::time::Duration;

use crate::common::{Server, broker, within};
use futures_util::StreamExt;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use rwork_backend::{Error, ResultBackend, Store, Stored};
use rwork_protocol::{Compression, Record, State, TaskId, compress_stored};
use rwork_redis::{Options, Redis, Role};
use tokio::time::Instant;

fn id(name: &str) -> TaskId {
    TaskId::new(name).unwrap()
}

fn store(name: &str, state: State, result: &'static str) -> Store {
    Store {
        record: Record::new(id(name), state, result),
        expires: None,
        reply_to: None,
        correlation_id: None,
    }
}

fn custom(name: &str) -> State {
    State::Custom(name.to_owned())
}

async fn text(admin: &mut MultiplexedConnection, name: &str) -> Option<Vec<u8>> {
    admin.get(format!("celery-task-meta-{name}")).await.unwrap()
}

#[tokio::test]
async fn a_record_that_was_on_its_way_for_too_long_is_refused() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let far = Instant::now() + Duration::from_secs(3600);
    // A later attempt's.
    let later = redis.store_before(vec![store("a", State::Failure, "{}")], Some(far)).await.unwrap();
    assert_eq!(later, [Stored::Written]);

    let () =
        redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").query_async(&mut admin).await.unwrap();
    let moment = Instant::now() + Duration::from_millis(50);
    let stalled = {
        let redis = redis.clone();
        let batch = vec![store("a", State::Retry, "{}"), store("b", State::Success, "1")];
        tokio::spawn(async move { redis.store_before(batch, Some(moment)).await })
    };
    tokio::time::sleep_until(moment).await;
    let () = redis::cmd("CLIENT").arg("UNPAUSE").query_async(&mut admin).await.unwrap();
    let stored = within("the answer", stalled).await.unwrap().unwrap();
    assert_eq!(stored, [Stored::Late, Stored::Written]);
    let stands = text(&mut admin, "a").await.unwrap();
    assert_eq!(stands, Record::new(id("a"), State::Failure, "{}").encode(), "the later attempt's");
    // The next moment is not taken for past.
    let next = redis.store_before(vec![store("a", State::Started, "{}")], Some(far)).await.unwrap();
    assert_eq!(next, [Stored::Written]);
}

#[tokio::test]
async fn a_record_is_stored_with_its_expiry_and_published_as_it_is() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let client = redis::Client::open(server.url()).unwrap();
    let (mut subscriber, mut heard) = client.get_async_pubsub().await.unwrap().split();
    subscriber.subscribe("celery-task-meta-a").await.unwrap();

    let day = Store { expires: Some(Duration::from_secs(86_400)), ..store("a", State::Success, "5") };
    let expect = day.record.encode();
    assert_eq!(redis.store(vec![day, store("b", State::Started, "{}")]).await.unwrap(), [Stored::Written; 2]);
    assert_eq!(text(&mut admin, "a").await.unwrap(), expect);
    let message = within("the publication", heard.next()).await.unwrap();
    assert_eq!(message.get_payload_bytes(), expect);
    let ttl: i64 = admin.pttl("celery-task-meta-a").await.unwrap();
    assert!((86_000_000..=86_400_000).contains(&ttl), "{ttl}");
    assert_eq!(admin.pttl::<_, i64>("celery-task-meta-b").await.unwrap(), -1, "`None` keeps it for ever");

    let brief = |expires| Store { expires: Some(expires), ..store("c", State::Started, "{}") };
    assert_eq!(
        redis.store(vec![brief(Duration::MAX)]).await.unwrap(),
        [Stored::Written],
        "bounded, not refused"
    );
    assert_eq!(redis.store(vec![brief(Duration::ZERO)]).await.unwrap(), [Stored::Written], "one millisecond");
    within("expiry", async { while redis.get(&[id("c")]).await.unwrap() != [None] {} }).await;
}

#[tokio::test]
async fn success_is_final_whoever_wrote_it() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let plain = Record::new(id("x"), State::Success, "5").encode();
    let compressed = compress_stored(&plain, Compression::of("gzip").unwrap()).unwrap();
    let late = Record::new(id("x"), State::Failure, "null").encode();
    let compressed_failure = compress_stored(&late, Compression::of("zstd").unwrap()).unwrap();
    for (name, stands, expect) in [
        ("json", plain.to_vec(), Stored::Kept),
        ("tight", br#"{"status":"SUCCESS","result":5,"task_id":"x"}"#.to_vec(), Stored::Kept),
        ("sorted", br#"{"result": 5, "status": "SUCCESS", "task_id": "x"}"#.to_vec(), Stored::Kept),
        ("gzip", compressed.to_vec(), Stored::Kept),
        ("msgpack", b"\x87\xa6status\xa7SUCCESS\xa6result\x05".to_vec(), Stored::Kept),
        ("failure", late.to_vec(), Stored::Written),
        ("zstd", compressed_failure.to_vec(), Stored::Written),
        (
            "other-order",
            br#"{"result": {"status": "SUCCESS"}, "status": "PROGRESS", "task_id": "x"}"#.to_vec(),
            Stored::Written,
        ),
        (
            "inside",
            br#"{"status": "PROGRESS", "result": {"status": "SUCCESS"}, "task_id": "x"}"#.to_vec(),
            Stored::Written,
        ),
        ("longer", br#"{"status": "SUCCESSFUL", "result": null, "task_id": "x"}"#.to_vec(), Stored::Written),
        ("nonsense", b"\xff\x00".to_vec(), Stored::Written),
        ("empty", b"".to_vec(), Stored::Written),
    ] {
        admin.set::<_, _, ()>(format!("celery-task-meta-{name}"), &stands).await.unwrap();
        let stored = redis.store(vec![store(name, State::Failure, "null")]).await.unwrap();
        assert_eq!(stored, [expect], "{name}");
        let changed = text(&mut admin, name).await.unwrap() != stands;
        assert_eq!(changed, expect == Stored::Written, "{name}");
    }
}

#[tokio::test]
async fn a_batch_is_stored_in_order() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let batch = vec![
        store("a", State::Started, "{}"),
        store("a", custom("PROGRESS"), r#"{"status": "SUCCESS"}"#),
        store("b", State::Success, "1"),
        store("a", State::Success, "2"),
        store("b", State::Retry, "null"),
        store("a", State::Failure, "null"),
    ];
    use Stored::{Kept, Written};
    assert_eq!(redis.store(batch).await.unwrap(), [Written, Written, Written, Written, Kept, Kept]);
    let records = redis.get(&[id("a"), id("none"), id("b")]).await.unwrap();
    let results: Vec<_> =
        records.iter().map(|record| record.as_ref().map(|record| &record.result[..])).collect();
    assert_eq!(results, [Some(b"2".as_slice()), None, Some(b"1")]);
}

#[tokio::test]
async fn many_records_go_in_few_calls() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let names: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
    let big = "\"".to_owned() + &"x".repeat(40_000) + "\"";
    let batch = names
        .iter()
        .map(|name| Store {
            record: Record::new(id(name), State::Success, big.clone()),
            expires: Some(Duration::from_secs(60)),
            reply_to: None,
            correlation_id: None,
        })
        .collect();
    assert_eq!(redis.store(batch).await.unwrap(), vec![Stored::Written; 1000]);
    let mut admin = server.admin().await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
    let calls: u32 = line.split(['=', ',']).nth(1).unwrap().parse().unwrap();
    assert!((10..=20).contains(&calls), "40 MB in calls of at most 4 MiB: {line}");
    let ids: Vec<_> = names.iter().map(|name| id(name)).collect();
    let records = redis.get(&ids).await.unwrap();
    assert!(
        records
            .iter()
            .zip(&ids)
            .all(|(record, id)| record.as_ref().is_some_and(|record| record.task_id == *id))
    );
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_before_it_is_sent() {
    let server = Server::start();
    let mut options = Options::parse(&server.url(), Role::Backend).unwrap();
    options.record_bytes_max = 200;
    let redis = Redis::connect(options).await.unwrap();
    let large = Store {
        record: Record::new(id("a"), State::Success, format!("\"{}\"", "x".repeat(200))),
        expires: None,
        reply_to: None,
        correlation_id: None,
    };
    let error = redis.store(vec![store("b", State::Success, "1"), large]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 200, .. }), "{error}");
    assert_eq!(redis.get(&[id("b")]).await.unwrap(), [None]);
}

#[tokio::test]
async fn compressed_records_are_read() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let record = Record::new(id("a"), State::Success, "[1, 2]");
    let mut admin = server.admin().await;
    for codec in ["gzip", "bzip2", "lzma", "zstd", "brotli"] {
        let Some(compression) = Compression::of(codec) else { panic!("{codec}") };
        let stored = compress_stored(&record.encode(), compression).unwrap();
        admin.set::<_, _, ()>("celery-task-meta-a", &stored[..]).await.unwrap();
        assert_eq!(redis.get(&[id("a")]).await.unwrap(), [Some(record.clone())], "{codec}");
        let mut watched = redis.watch(&id("a")).await.unwrap();
        assert_eq!(watched.next().await.unwrap().unwrap(), record, "{codec}");
        assert!(watched.next().await.is_none(), "{codec}");
    }
}

#[tokio::test]
async fn a_prefix_of_the_backends_own() {
    let server = Server::start();
    let mut options = Options::parse(&server.url(), Role::Backend).unwrap();
    options.transport.set("global_keyprefix", "rp").unwrap();
    let redis = Redis::connect(options).await.unwrap();
    redis.store(vec![store("a", State::Success, "1")]).await.unwrap();
    let keys: Vec<String> = server.admin().await.keys("*").await.unwrap();
    assert_eq!(keys, ["rp_celery-task-meta-a"]);
    let mut watched = redis.watch(&id("a")).await.unwrap();
    assert_eq!(watched.next().await.unwrap().unwrap().status, State::Success);
    assert!(redis.forget(&id("a")).await.unwrap());
    assert!(!redis.forget(&id("a")).await.unwrap());
}

/// Channels that somebody listens to, and how many do.
async fn channels(admin: &mut MultiplexedConnection) -> usize {
    redis::cmd("PUBSUB").arg("CHANNELS").query_async::<Vec<String>>(admin).await.unwrap().len()
}

#[tokio::test]
async fn watches_share_a_subscription_and_leave_none_behind() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let mut first = redis.watch(&id("a")).await.unwrap();
    let mut second = redis.watch(&id("a")).await.unwrap();
    let other = redis.watch(&id("b")).await.unwrap();
    assert_eq!(channels(&mut admin).await, 2);

    redis.store(vec![store("a", State::Started, "{}")]).await.unwrap();
    assert_eq!(first.next().await.unwrap().unwrap().status, State::Started);
    drop(first);
    drop(other);
    within("unsubscribing", async { while channels(&mut admin).await != 1 {} }).await;

    redis.store(vec![store("a", State::Success, "1")]).await.unwrap();
    let mut last = None;
    while let Some(record) = second.next().await {
        last = Some(record.unwrap().status);
    }
    assert_eq!(last, Some(State::Success));
    within("unsubscribing", async { while channels(&mut admin).await != 0 {} }).await;

    // The same channel again, right behind the unsubscribing.
    for round in 0..50 {
        let name = format!("c{}", round % 3);
        let mut watched = redis.watch(&id(&name)).await.unwrap();
        let record = store(&name, custom(&format!("R{round}")), "{}");
        redis.store(vec![record]).await.unwrap();
        within("the record", async {
            while watched.next().await.unwrap().unwrap().status != custom(&format!("R{round}")) {}
        })
        .await;
    }
}

#[tokio::test]
async fn many_watches_at_once() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let names: Vec<String> = (0..2000).map(|number| format!("n{number}")).collect();
    let waiting: Vec<_> = names
        .iter()
        .map(|name| {
            let (redis, id) = (redis.clone(), id(name));
            tokio::spawn(async move {
                let mut watched = redis.watch(&id).await.unwrap();
                watched.next().await.unwrap().unwrap().task_id == id
            })
        })
        .collect();
    let batch = names.iter().map(|name| store(name, State::Success, "1")).collect();
    redis.store(batch).await.unwrap();
    for task in waiting {
        assert!(within("a watch", task).await.unwrap());
    }
    let mut admin = server.admin().await;
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut admin).await.unwrap();
    let ours = clients.lines().filter(|line| line.contains("name=rwork")).count();
    assert_eq!(ours, 2, "one for commands, one for all watches: {clients}");
}

#[tokio::test]
async fn a_watch_goes_on_after_its_connection_is_killed() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let mut watched = redis.watch(&id("a")).await.unwrap();
    for round in 0..5 {
        let state = custom(&format!("R{round}"));
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", "pubsub"]).exec_async(&mut admin).await.unwrap();
        // Written while nobody listens, by somebody whose publication is lost.
        let record = Record::new(id("a"), state.clone(), "{}").encode();
        admin.set::<_, _, ()>("celery-task-meta-a", &record[..]).await.unwrap();
        let seen = within("the record", watched.next()).await.unwrap().unwrap();
        assert_eq!(seen.status, state);
    }
    redis.store(vec![store("a", State::Success, "1")]).await.unwrap();
    assert_eq!(within("the last", watched.next()).await.unwrap().unwrap().status, State::Success);
    assert!(watched.next().await.is_none());
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let redis = broker(&server.url()).await.unwrap();
    let mut watched = redis.watch(&id("a")).await.unwrap();
    redis.store(vec![store("a", State::Started, "{}")]).await.unwrap();
    assert_eq!(within("the start", watched.next()).await.unwrap().unwrap().status, State::Started);
    server.kill();
    let error = within("an outage", async {
        loop {
            if let Err(error) = redis.watch(&id("b")).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    server.restart();
    within("storing", async { while redis.store(vec![store("a", State::Success, "1")]).await.is_err() {} })
        .await;
    // What was told before is not told again.
    assert_eq!(within("the end", watched.next()).await.unwrap().unwrap().status, State::Success);
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_an_error_of_its_own() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    admin.set::<_, _, ()>("celery-task-meta-a", "nonsense").await.unwrap();
    let error = redis.get(&[id("a")]).await.unwrap_err();
    assert!(matches!(error, Error::Act { retryable: false, .. }), "{error}");
    let mut watched = redis.watch(&id("a")).await.unwrap();
    assert!(watched.next().await.unwrap().is_err());
    redis.store(vec![store("a", State::Success, "1")]).await.unwrap();
    assert_eq!(within("the end", watched.next()).await.unwrap().unwrap().status, State::Success);
}

#[tokio::test]
async fn a_forgotten_record_is_news_again() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut watched = redis.watch(&id("a")).await.unwrap();
    redis.store(vec![store("a", custom("P"), "1")]).await.unwrap();
    assert_eq!(watched.next().await.unwrap().unwrap().status, custom("P"));
    redis.forget(&id("a")).await.unwrap();
    redis.store(vec![store("a", custom("Q"), "1")]).await.unwrap();
    assert_eq!(within("the next", watched.next()).await.unwrap().unwrap().status, custom("Q"));
}
