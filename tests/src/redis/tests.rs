//! That the servers are what the options say, and come and go as told.

use super::*;

async fn config(server: &RedisServer, name: &str) -> String {
    let mut redis = server.connect(0).await.unwrap();
    let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut redis).await.unwrap();
    pair[1].clone()
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let options = Options {
        append_only: true,
        password: Some("pass".into()),
        memory_max: Some("16mb".into()),
        ..Options::default()
    };
    let server = RedisServer::start(options).unwrap();
    let mut redis = server.connect(3).await.unwrap();
    let () = redis::cmd("SET").arg("a").arg("b").query_async(&mut redis).await.unwrap();
    server.kill_9().unwrap();
    server.kill_9().unwrap_err();
    server.start_again().unwrap();
    server.start_again().unwrap_err();
    let mut redis = server.connect(3).await.unwrap();
    let kept: String = redis::cmd("GET").arg("a").query_async(&mut redis).await.unwrap();
    assert_eq!(kept, "b");
    assert_eq!(config(&server, "maxmemory").await, "16777216");
    assert!(server.url(3).starts_with("redis://:pass@127.0.0.1:"), "{}", server.url(3));
}

#[tokio::test]
async fn a_sentinel_makes_the_replica_the_master() {
    let master = RedisServer::start(Options::default()).unwrap();
    let replica =
        RedisServer::start(Options { replica_of: Some(master.port()), ..Options::default() }).unwrap();
    replica.log().find(0, |line| line.contains("Finished with success")).await.unwrap();
    let sentinel = Sentinel::start(&master).unwrap();
    sentinel.knows_a_replica().await.unwrap();
    master.kill_9().unwrap();
    sentinel.has_switched().await.unwrap();
    let mut redis = replica.connect(0).await.unwrap();
    let role: (String, redis::Value, redis::Value) =
        redis::cmd("ROLE").query_async(&mut redis).await.unwrap();
    assert_eq!(role.0, "master");
}

#[tokio::test]
async fn tls_is_spoken_and_a_paused_server_answers_when_it_goes_on() {
    let server = RedisServer::start(Options { tls: true, ..Options::default() }).unwrap();
    assert_eq!(config(&server, "tls-port").await, server.port().to_string());
    let mut redis = server.connect(0).await.unwrap();
    server.pause().unwrap();
    let asked = tokio::spawn(async move { redis::cmd("PING").query_async::<String>(&mut redis).await });
    server.resume().unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), "PONG");
}

#[tokio::test]
async fn the_shared_one_has_a_database_for_everybody() {
    let (one, other) = (RedisServer::fresh_database(), RedisServer::fresh_database());
    assert_ne!(one, other);
    let mut redis = RedisServer::shared().connect(one).await.unwrap();
    let () = redis::cmd("SET").arg("a").arg("b").query_async(&mut redis).await.unwrap();
    let mut redis = RedisServer::shared().connect(other).await.unwrap();
    let size: u32 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
    assert_eq!(size, 0);
}
