//! A server whose memory is full (`noeviction`): results are stored all the same, up to a bound.

use redis::AsyncCommands;
use rwork_backend::{Error, ResultBackend, Store, Stored};
use rwork_protocol::{Record, State, TaskId};

use crate::common::{Server, broker, within};

const MEMORY: &[&str] = &["--maxmemory", "20mb", "--maxmemory-policy", "noeviction"];
/// What results may take beyond the limit.
const BEYOND: usize = 16 << 20;

fn result(name: &str, bytes: usize) -> Store {
    Store {
        record: Record::new(TaskId::new(name).unwrap(), State::Success, format!("\"{}\"", "x".repeat(bytes))),
        expires: None,
        reply_to: None,
        correlation_id: None,
    }
}

/// Fills a server's memory with messages.
async fn fill(server: &Server) {
    let mut admin = server.admin().await;
    let message = "m".repeat(10_000);
    while admin.lpush::<_, _, u64>("celery", &message).await.is_ok() {}
    while admin.lpush::<_, _, u64>("celery", "m").await.is_ok() {}
}

#[tokio::test]
async fn results_are_stored_while_memory_is_full() {
    let server = Server::with(MEMORY);
    let redis = broker(&server.url()).await.unwrap();
    fill(&server).await;
    for round in 0..20 {
        let batch = (0..50).map(|nth| result(&format!("{round}-{nth}"), 1000)).collect();
        assert_eq!(redis.store(batch).await.unwrap(), [Stored::Written; 50]);
    }
    // A record takes the place of another one without taking more.
    let id = TaskId::new("s").unwrap();
    let started = Store { record: Record::new(id, State::Started, "1".repeat(1000)), ..result("s", 0) };
    assert_eq!(redis.store(vec![started]).await.unwrap(), [Stored::Written]);
    assert_eq!(redis.store(vec![result("s", 900)]).await.unwrap(), [Stored::Written]);
}

#[tokio::test]
async fn a_full_server_takes_no_more_than_a_bound() {
    let server = Server::with(MEMORY);
    let redis = broker(&server.url()).await.unwrap();
    fill(&server).await;
    let mut stored = 0;
    let error = loop {
        match redis.store(vec![result(&format!("{stored}"), 1 << 20)]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored <= BEYOND >> 20, "more was stored than the bound");
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(error.is_retryable());
    assert!(stored >= 10, "{stored} MiB were stored");
    // The small ones of a batch go, once the server has let the line's buffer for the large one go; the batch is stored again
    // when there is room.
    let small = || vec![result("large", 4 << 20), result("small", 100)];
    redis.store(small()).await.unwrap_err();
    within("a small result", async { while redis.store(vec![result("other", 100)]).await.is_err() {} }).await;
    let mut admin = server.admin().await;
    admin.del::<_, ()>("celery").await.unwrap();
    // The small one may have been stored before.
    assert_eq!(redis.store(small()).await.unwrap().first(), Some(&Stored::Written));
}

#[tokio::test]
async fn without_the_right_to_ask_nothing_is_stored_beyond_the_limit() {
    let server = Server::with(MEMORY);
    let mut admin = server.admin().await;
    let rules = ["SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-info"];
    redis::cmd("ACL").arg(&rules).exec_async(&mut admin).await.unwrap();
    let url = format!("redis://u:pw@127.0.0.1:{}/0", server.port);
    let redis = broker(&url).await.unwrap();
    assert_eq!(redis.store(vec![result("a", 100)]).await.unwrap(), [Stored::Written]);
    fill(&server).await;
    let error = redis.store(vec![result("b", 1 << 20)]).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
}
