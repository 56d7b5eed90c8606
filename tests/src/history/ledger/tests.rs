//! That only kombu's losses are found, from what a real server wrote.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use super::*;
use crate::redis::{Options, RedisServer};

fn message(id: &str) -> String {
    format!(
        "{{\"body\": \"\", \"properties\": {{\"correlation_id\": \"{id}\", \"delivery_tag\": \"{id}\"}}}}"
    )
}

fn noted(id: &str) -> String {
    format!("[{}, \"\", \"celery\"]", message(id))
}

async fn redis(server: &RedisServer) -> MultiplexedConnection {
    server.connect(0).await.unwrap()
}

fn server() -> RedisServer {
    let more = vec!["--auto-aof-rewrite-percentage".to_owned(), "0".to_owned()];
    RedisServer::start(Options { append_only: true, more, ..Options::default() }).unwrap()
}

#[tokio::test]
async fn a_bare_pop_without_a_note_is_kombus_loss() {
    let server = server();
    let mut redis = redis(&server).await;
    for id in ["noted", "lost", "acked", "given back", "waiting"] {
        let () = redis.lpush("celery", message(id)).await.unwrap();
    }
    // As kombu takes them, the blocking form in the file being a plain one.
    for id in ["noted", "lost", "acked", "given back"] {
        let _: (String, String) = redis.brpop("celery", 1.0).await.unwrap();
        if id != "lost" {
            let () = redis.hset("unacked", id, noted(id)).await.unwrap();
        }
    }
    let () = redis.hdel("unacked", "acked").await.unwrap();
    let () = redis.rpush("celery", message("given back")).await.unwrap();
    let lost = dropped_by_kombu(server.directory()).unwrap();
    assert_eq!(lost.into_iter().collect::<Vec<_>>(), ["lost"]);
}

#[tokio::test]
async fn a_pop_with_a_count_is_ours_and_never_excused() {
    let server = server();
    let mut connection = redis(&server).await;
    for id in ["one", "two", "three"] {
        let () = connection.lpush("celery", message(id)).await.unwrap();
    }
    let take = "local taken = redis.call('RPOP', 'celery', 2) \
                redis.call('HSET', 'unacked', 'one', '[' .. taken[1] .. ', \"\", \"celery\"]')";
    let () = redis::Script::new(take).invoke_async(&mut connection).await.unwrap();
    server.kill_9().unwrap();
    server.start_again().unwrap();
    let _: (String, String) = redis(&server).await.brpop("celery", 1.0).await.unwrap();
    let lost = dropped_by_kombu(server.directory()).unwrap();
    assert_eq!(lost.into_iter().collect::<Vec<_>>(), ["three"]);
}

#[tokio::test]
async fn a_moved_message_is_followed() {
    let server = server();
    let mut redis = redis(&server).await;
    for id in ["one", "two", "three"] {
        let () = redis.lpush("celery", message(id)).await.unwrap();
    }
    // There and back again: its list is as it was but for the order of the last two.
    for (from, to, out, into) in [
        ("celery", "taking", "RIGHT", "LEFT"),
        ("celery", "taking", "LEFT", "RIGHT"),
        ("taking", "celery", "LEFT", "RIGHT"),
    ] {
        let mut cmd = ::redis::cmd("BLMOVE");
        let _: String =
            cmd.arg(from).arg(to).arg(out).arg(into).arg(1).query_async(&mut redis).await.unwrap();
    }
    // Of `two`, `one` the one on the right, and then what was left in between.
    let _: (String, String) = redis.brpop("celery", 1.0).await.unwrap();
    let lost = dropped_by_kombu(server.directory()).unwrap();
    assert_eq!(lost.into_iter().collect::<Vec<_>>(), ["one"]);
    let _: (String, String) = redis.brpop("taking", 1.0).await.unwrap();
    let lost = dropped_by_kombu(server.directory()).unwrap();
    assert_eq!(lost.into_iter().collect::<Vec<_>>(), ["one", "three"]);
}

#[test]
fn a_command_that_a_kill_has_cut_is_the_end() {
    let push =
        format!("*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n${}\r\n{}\r\n", message("a").len(), message("a"));
    for cut in 0..=push.len() {
        let mut ledger = Ledger::default();
        let account = push.as_bytes().get(..cut).unwrap();
        ledger.read(account).unwrap();
        assert_eq!(ledger.lists.len(), usize::from(cut == push.len()), "cut after {cut} bytes");
    }
    Ledger::default().read(&b"REDIS0009"[..]).unwrap();
    Ledger::default().read(&b"+OK\r\n"[..]).unwrap_err();
}
