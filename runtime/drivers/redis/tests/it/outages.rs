//! What a lost, hung, full or changed server does to whoever uses it, and how it goes on by itself.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::{Server, broker, sentinel, within};
use redis::AsyncCommands;
use rwork_backend::{ResultBackend, Store, Stored};
use rwork_protocol::{Record, State, TaskId};
use rwork_redis::{Error, Options, Redis, Role};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn id() -> TaskId {
    TaskId::new("i").unwrap()
}

fn success() -> Store {
    let record = Record::new(id(), State::Success, "1");
    Store { record, expires: None, reply_to: None, correlation_id: None }
}

/// Asks until it is answered: the pauses are the worker's business.
async fn until_it_works(redis: &Redis) {
    within("coming back", async { while redis.get(&[id()]).await.is_err() {} }).await;
}

/// Asks until it fails in this way.
async fn until_it_fails(redis: &Redis, is_so: impl Fn(&Error) -> bool) -> Error {
    within("failing", async {
        loop {
            match redis.get(&[id()]).await {
                Err(error) if is_so(&error) => return error,
                _ => {}
            }
        }
    })
    .await
}

/// Options with short times, for a server that will not answer.
fn hasty(url: &str) -> Options {
    let mut options = Options::parse(url, Role::Broker).unwrap();
    options.transport.socket_timeout = Some(Duration::from_millis(900));
    options.transport.socket_connect_timeout = Some(Duration::from_millis(300));
    options
}

#[tokio::test]
async fn a_restarted_server() {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let redis = broker(&server.url()).await.unwrap();
    redis.store(vec![success()]).await.unwrap();
    server.kill();
    let error = until_it_fails(&redis, |error| error.hint().is_some()).await;
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error}");
    server.restart();
    until_it_works(&redis).await;
    // Scripts are gone with the process, records are not.
    assert_eq!(redis.store(vec![success()]).await.unwrap(), [Stored::Kept]);
}

#[tokio::test]
async fn a_killed_connection() {
    let server = Server::start();
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    for _ in 0..3 {
        let killed: u32 = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .query_async(&mut admin)
            .await
            .unwrap();
        assert_eq!(killed, 1);
        until_it_works(&redis).await;
    }
}

#[tokio::test]
async fn a_paused_server() {
    let server = Server::start();
    let redis = Redis::connect(hasty(&server.url())).await.unwrap();
    server.pause();
    let error = within("a paused server", redis.get(&[id()])).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(source, "no answer within 0.9 s");
    // The connection was given up; a new one is taken, and not greeted.
    let error = redis.get(&[id()]).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("has not answered within 0.3 s"), "{source}");
    server.resume();
    until_it_works(&redis).await;
}

#[tokio::test]
async fn a_pause_that_ends_in_time_is_waited_out() {
    let server = Server::with(&["--enable-debug-command", "yes"]);
    let mut options = Options::parse(&server.url(), Role::Broker).unwrap();
    // Suspicious at once, so that the second connection is tried again and again meanwhile.
    options.transport.socket_timeout = Some(Duration::from_secs(3));
    let redis = Redis::connect(options).await.unwrap();
    redis.store(vec![success()]).await.unwrap();
    let mut admin = server.admin().await;
    let sleep =
        tokio::spawn(async move { redis::cmd("DEBUG").arg("SLEEP").arg("1.5").exec_async(&mut admin).await });
    // Asked before, during or after the pause: answered.
    while !sleep.is_finished() {
        assert_eq!(redis.get(&[id()]).await.unwrap().len(), 1);
        assert_eq!(redis.store(vec![success()]).await.unwrap(), [Stored::Kept]);
    }
    sleep.await.unwrap().unwrap();
}

/// Passes bytes on to a server until it is told to hold them back; what comes later goes through again.
async fn line_to(port: u16) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let was_cut = *is_cut.borrow_and_update();
                tokio::select! {
                    _ = copy_bidirectional(&mut from, &mut to) => {}
                    // Both ends stay open, and nothing moves: as when a firewall forgets a connection.
                    () = async { let _ = is_cut.changed().await; } => {
                        assert!(!was_cut);
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    (format!("redis://127.0.0.1:{here}"), cut)
}

#[tokio::test]
async fn a_dead_line_is_told_from_a_slow_server() {
    let server = Server::start();
    let (url, cut) = line_to(server.port).await;
    let mut options = Options::parse(&url, Role::Broker).unwrap();
    // Only the suspicion, which comes after a sixth of it, gives this error.
    options.transport.socket_timeout = Some(Duration::from_secs(6));
    let redis = Redis::connect(options).await.unwrap();
    redis.store(vec![success()]).await.unwrap();
    cut.send(true).unwrap();
    let error = within("a dead line", redis.get(&[id()])).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "the connection was closed", "not `no answer within 6 s`");
    until_it_works(&redis).await;
}

#[tokio::test]
async fn a_changed_password() {
    let server = Server::with(&["--requirepass", "before"]);
    let admin_url = format!("redis://:before@127.0.0.1:{}", server.port);
    let mut admin =
        redis::Client::open(&*admin_url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let redis = broker(&admin_url).await.unwrap();
    let mut set_password = async |password: &str| {
        redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).exec_async(&mut admin).await.unwrap();
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec_async(&mut admin).await.unwrap();
    };
    set_password("after").await;
    let error = until_it_fails(&redis, |error| matches!(error, Error::Refused { .. })).await;
    assert!(error.to_string().contains("WRONGPASS") && !error.to_string().contains("before"), "{error}");
    assert!(error.hint().unwrap().contains("password"), "{error}");
    set_password("before").await;
    until_it_works(&redis).await;
}

#[tokio::test]
async fn a_full_server() {
    let server = Server::with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let redis = broker(&server.url()).await.unwrap();
    // Small results are stored all the same: see `full_memory`.
    let large = Record::new(id(), State::Success, format!("\"{}\"", "x".repeat(20 << 20)));
    let error = redis.store(vec![Store { record: large, ..success() }]).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("OOM"), "{error}");
    assert!(error.hint().unwrap().contains("`maxmemory`"), "{error}");
    // Reading and deleting work all the same.
    assert_eq!(redis.get(&[id()]).await.unwrap(), [None]);
    assert!(!redis.forget(&id()).await.unwrap());
    let mut admin = server.admin().await;
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec_async(&mut admin).await.unwrap();
    assert_eq!(redis.store(vec![success()]).await.unwrap(), [Stored::Written]);
}

#[tokio::test]
async fn a_server_that_can_not_save() {
    // Its folder is gone by the time it wants to write there, and then it takes no more writes.
    let server = Server::with(&["--save", "1 1", "--stop-writes-on-bgsave-error", "yes"]);
    let mut admin = server.admin().await;
    std::fs::remove_dir_all(server.folder.path()).unwrap();
    admin.set::<_, _, ()>("k", "v").await.unwrap();
    let redis = broker(&server.url()).await.unwrap();
    let error = within("the failing snapshot", async {
        loop {
            // The failed snapshot is an event that only its effect tells.
            let _: Result<(), _> = redis::cmd("BGSAVE").exec_async(&mut admin).await;
            if let Err(error) = redis.store(vec![success()]).await {
                return error;
            }
            // A success is never overwritten: only without one does the next round write.
            if let Err(error) = redis.forget(&id()).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, Error::Full { .. }) && error.to_string().contains("MISCONF"), "{error}");
    assert!(error.hint().unwrap().contains("disk"), "{error}");
}

#[tokio::test]
async fn a_master_that_became_a_replica() {
    let (other, server) = (Server::start(), Server::start());
    let redis = broker(&server.url()).await.unwrap();
    let mut admin = server.admin().await;
    let port = other.port.to_string();
    redis::cmd("REPLICAOF").arg(&["127.0.0.1", &port]).exec_async(&mut admin).await.unwrap();
    let error = redis.store(vec![success()]).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // The connection was dropped; the next one sees what it leads to.
    let error = redis.store(vec![success()]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }) && error.to_string().contains("replica"), "{error}");
    redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut admin).await.unwrap();
    within("coming back", async { while redis.store(vec![success()]).await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_by_sentinel() {
    let mut master = Server::with(&["--requirepass", "hunter2", "--masterauth", "hunter2"]);
    let replica = Server::with(&[
        "--requirepass",
        "hunter2",
        "--masterauth",
        "hunter2",
        "--replicaof",
        "127.0.0.1",
        &master.port.to_string(),
    ]);
    let watcher = sentinel(master.port, "sentinel auth-pass mymaster hunter2\nrequirepass guard");
    let nobody = crate::common::free_port();
    let url = format!("sentinel://:hunter2@127.0.0.1:{nobody}/1;sentinel://127.0.0.1:{}", watcher.port);
    let mut options = Options::parse(&url, Role::Broker).unwrap();
    assert!(
        matches!(Redis::connect(options.clone()).await, Err(Error::Url { .. })),
        "`master_name` is needed"
    );

    options.transport.set("master_name", "mymaster").unwrap();
    let error = Redis::connect(options.clone()).await.unwrap_err();
    assert!(error.to_string().contains("NOAUTH"), "the sentinel has a password of its own: {error}");
    options.transport.set("sentinel_kwargs.password", "guard").unwrap();
    let mut wrong = options.clone();
    wrong.transport.set("master_name", "nobody").unwrap();
    let error = Redis::connect(wrong).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused { .. }) && error.to_string().contains("knows a master `nobody`"),
        "{error}"
    );
    assert!(!format!("{options:?}").contains("hunter2") && !format!("{options:?}").contains("guard"));

    let redis = Redis::connect(options).await.unwrap();
    redis.store(vec![success()]).await.unwrap();
    // The sentinel must know the replica, and the replica the record, before the master may go.
    let mut sentinel = connection(&format!("redis://:guard@127.0.0.1:{}", watcher.port)).await;
    within("the sentinel's view of the replica", async {
        loop {
            let mut ask = redis::cmd("SENTINEL");
            ask.arg(&["replicas", "mymaster"]);
            let replicas: Vec<HashMap<String, String>> = ask.query_async(&mut sentinel).await.unwrap();
            if replicas.iter().any(|replica| replica["master-link-status"] == "ok") {
                break;
            }
        }
    })
    .await;
    let mut old = connection(&format!("redis://:hunter2@127.0.0.1:{}/1", master.port)).await;
    within("replication", async {
        while redis::cmd("WAIT").arg(1).arg(0).query_async::<u32>(&mut old).await.unwrap() != 1 {}
    })
    .await;

    master.pause();
    within("the fail-over", async {
        loop {
            match redis.store(vec![success()]).await {
                Ok(stored) => break assert_eq!(stored, [Stored::Kept], "the replica has the record"),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    })
    .await;
    let mut new = connection(&format!("redis://:hunter2@127.0.0.1:{}/1", replica.port)).await;
    assert!(new.exists::<_, bool>("celery-task-meta-i").await.unwrap());
    master.kill();
    until_it_works(&redis).await;
}

async fn connection(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(crate::common::HANG));
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// A server that is paused for a fail-over greets a new connection, though it runs nothing that may write.
#[tokio::test]
async fn a_server_that_is_paused_for_writes_loses_no_connection() {
    let server = Server::start();
    let mut options = Options::parse(&server.url(), Role::Backend).unwrap();
    // After a sixth of it there is a suspicion.
    options.transport.set("socket_timeout", "6").unwrap();
    let redis = Redis::connect(options).await.unwrap();
    let mut admin = server.admin().await;
    redis::cmd("CLIENT").arg(&["PAUSE", "4000", "WRITE"]).exec_async(&mut admin).await.unwrap();
    assert_eq!(
        within("the end of the pause", redis.store(vec![success()])).await.unwrap(),
        [Stored::Written]
    );
}
