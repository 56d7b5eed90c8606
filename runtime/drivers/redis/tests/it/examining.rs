//! What `rwork doctor` is told of a server.

use std::time::Duration;

use redis::AsyncCommands;
use rwork_redis::{KeyInUse, Options, Redis, Role};

use crate::common::{Server, broker};

#[tokio::test]
async fn facts_of_a_durable_server() {
    let server = Server::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "900 1",
        "--maxmemory",
        "64mb",
        "--maxmemory-policy",
        "noeviction",
        "--maxclients",
        "77",
    ]);
    let replica = Server::with(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    let found = broker(&server.url()).await.unwrap().examine().await.unwrap();
    assert_eq!(found.server, server.url());
    assert!(found.version.split('.').count() == 3, "{}", found.version);
    assert_eq!((found.mode.as_str(), found.role.as_str()), ("standalone", "master"));
    assert_eq!(found.said.number::<u64>("maxmemory"), Some(64 << 20));
    assert_eq!(found.said.text("maxmemory_policy"), Some("noeviction"));
    assert!(found.said.number::<u64>("used_memory").is_some_and(|bytes| bytes > 100_000), "{found:?}");
    assert_eq!(found.said.number::<u64>("evicted_keys"), Some(0));
    assert_eq!(found.said.is("aof_enabled", "1"), Some(true));
    assert_eq!(found.said.text("appendfsync"), Some("always"));
    assert_eq!(found.said.is("aof_last_write_status", "ok"), Some(true));
    assert_eq!(found.said.text("save"), Some("900 1"));
    assert_eq!(found.said.is("rdb_last_bgsave_status", "ok"), Some(true));
    assert_eq!(found.said.number::<u64>("maxclients"), Some(77));
    assert!(found.said.number::<u64>("connected_clients").is_some_and(|clients| clients >= 2), "{found:?}");
    assert!(found.said.number::<u64>("connected_slaves").is_some_and(|replicas| replicas <= 1));
    assert_eq!(found.round_trips.len(), 20);
    assert!(found.round_trips.iter().all(|trip| *trip > Duration::ZERO));
    assert!(found.clock_ahead_s.abs() < 60.0, "it is the same clock: {}", found.clock_ahead_s);
    assert!(found.tracking && found.publishes);
    assert_eq!(found.keys, []);
    drop(replica);
}

#[tokio::test]
async fn keys_in_use_are_those_of_the_prefix() {
    let server = Server::start();
    let mut admin = server.admin().await;
    for prefix in ["p*:", "", "pq:"] {
        admin.sadd::<_, _, ()>(format!("{prefix}_kombu.binding.celery"), &["a", "b"]).await.unwrap();
        admin.zadd::<_, _, _, ()>(format!("{prefix}rwork.consumers"), "c", 1).await.unwrap();
    }
    admin.hset::<_, _, _, ()>("p*:taken", "tag", "1").await.unwrap();
    admin.set::<_, _, ()>("p*:unacked_mutex", "1").await.unwrap();
    let mut options = Options::parse(&server.url(), Role::Broker).unwrap();
    options.transport.set("global_keyprefix", "p*:").unwrap();
    options.transport.set("unacked_key", "taken").unwrap();
    let found = Redis::connect(options).await.unwrap().examine().await.unwrap();
    let key =
        |name: &str, kind: &str, entries| KeyInUse { name: name.to_owned(), kind: kind.to_owned(), entries };
    assert_eq!(
        found.keys,
        [
            key("p*:_kombu.binding.celery", "set", 2),
            key("p*:rwork.consumers", "zset", 1),
            key("p*:taken", "hash", 1),
            key("p*:unacked_mutex", "string", 1),
        ]
    );
}

#[tokio::test]
async fn what_a_server_refuses_to_tell_is_none() {
    let server = Server::start();
    let mut admin = server.admin().await;
    let mut user = redis::cmd("ACL");
    user.arg(&[
        "SETUSER",
        "few",
        "on",
        ">pw",
        "~*",
        "resetchannels",
        "+@all",
        "-@admin",
        "-@dangerous",
        "-client|tracking",
    ]);
    user.exec_async(&mut admin).await.unwrap();
    let redis = broker(&format!("redis://few:pw@127.0.0.1:{}", server.port)).await.unwrap();
    let found = redis.examine().await.unwrap();
    assert_eq!(
        (found.said.number::<u64>("maxmemory"), found.said.text("appendfsync"), found.said.text("save")),
        (None, None, None)
    );
    assert!(!found.tracking && !found.publishes);
    assert_eq!(found.role, "master");
    assert_eq!(found.round_trips.len(), 20);
}
