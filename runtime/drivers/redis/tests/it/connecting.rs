//! Each way in, and each way to be turned away, with words and a hint of its own.

use std::time::Duration;

use crate::common::{Server, broker, free_port, sentinel};
use redis::AsyncCommands;
use rwork_backend::{ResultBackend, Store};
use rwork_protocol::{Record, State, TaskId};
use rwork_redis::{Error, Options, Redis, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Kind, whole chain and hint, in one line.
pub(crate) fn shown(error: &Error) -> String {
    let kind = match error {
        Error::Unreachable { .. } => "unreachable",
        Error::Refused { .. } => "refused",
        Error::Url { .. } => "url",
        Error::Full { .. } => "full",
        _ => "other",
    };
    let below = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{kind}: {error}{below} [{}]", error.hint().unwrap_or("no hint"))
}

async fn refusal(url: &str) -> String {
    refusal_of(Options::parse(url, Role::Broker).unwrap()).await
}

async fn refusal_of(mut options: Options) -> String {
    options.transport.socket_connect_timeout.get_or_insert(Duration::from_millis(500));
    match crate::common::within("connecting", Redis::connect(options)).await {
        Err(error) => {
            let line = shown(&error);
            assert!(!line.contains("hunter2"), "{line}");
            line
        }
        Ok(_) => panic!("expected a refusal"),
    }
}

/// Stores a record and reads it back.
async fn works(redis: &Redis) {
    let id = TaskId::new("it-works").unwrap();
    let record = Record::new(id.clone(), State::Success, "1");
    let store = Store { record: record.clone(), expires: None, reply_to: None, correlation_id: None };
    redis.store(vec![store]).await.unwrap();
    assert_eq!(redis.get(&[id]).await.unwrap(), [Some(record)]);
}

/// Answers each connection with these in turn, whatever it says; with none, never.
async fn pretender(answers: &'static [&'static [u8]]) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in answers {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            }
            held.push(stream);
        }
    });
    format!("redis://127.0.0.1:{port}")
}

fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "expected {part:?} in {line}");
    }
}

#[tokio::test]
async fn nobody_there() {
    assert_says(
        &refusal("redis://:hunter2@no-such-host.invalid").await,
        &[
            "unreachable",
            "redis://***@no-such-host.invalid:6379/0",
            "found no address of `no-such-host.invalid`",
            "DNS",
        ],
    );
    assert_says(
        &refusal(&format!("redis://127.0.0.1:{}", free_port())).await,
        &["unreachable", "connection refused", "start the server there"],
    );
    assert_says(
        &refusal("redis+socket:///no/such/socket?virtual_host=1").await,
        &["unreachable", "there is no such socket", "`unixsocket`"],
    );
}

#[tokio::test]
async fn a_server_that_never_answers() {
    assert_says(
        &refusal(&pretender(&[]).await).await,
        &["unreachable", "it takes connections, but has not answered within 0.5 s", "hangs"],
    );
    let server = Server::start();
    server.pause();
    assert_says(&refusal(&server.url()).await, &["unreachable", "has not answered within 0.5 s"]);
    server.resume();
    works(&broker(&server.url()).await.unwrap()).await;
}

#[tokio::test]
async fn something_else_there() {
    assert_says(
        &refusal(&pretender(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]).await).await,
        &["refused", "does not speak Redis", "check host and port"],
    );
    assert_says(
        &refusal(&pretender(&[b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"]).await)
            .await,
        &["refused", "expected Redis 6.2 or newer", "upgrade"],
    );
    assert_says(
        &refusal(&pretender(&[b"-NOPROTO unsupported protocol version\r\n"]).await).await,
        &["refused", "expected Redis 6.2 or newer"],
    );
    const OLD: &[&[u8]] = &[
        b"%1\r\n+proto\r\n:3\r\n",
        b"%3\r\n+version\r\n+6.0.16\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n+OK\r\n",
    ];
    assert_says(
        &refusal(&pretender(OLD).await).await,
        &["refused", "expected Redis 6.2 or newer, found 6.0.16"],
    );
    assert_says(
        &refusal(&pretender(&[b"-DENIED Redis is running in protected mode\r\n"]).await).await,
        &["refused", "protected mode", "set a password"],
    );
}

#[tokio::test]
async fn servers_of_another_kind() {
    let master = Server::start();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    assert_says(&refusal(&replica.url()).await, &["refused", "read-only replica", "`sentinel://`"]);
    let cluster = Server::with(&["--cluster-enabled", "yes"]);
    assert_says(&refusal(&cluster.url()).await, &["refused", "a node of a cluster", "`cluster-enabled`"]);
    let sentinel = sentinel(master.port, "");
    assert_says(&refusal(&sentinel.url()).await, &["refused", "it is a sentinel", "`master_name`"]);
}

#[tokio::test]
async fn passwords_users_and_databases() {
    let server = Server::with(&["--requirepass", "p/w @1%"]);
    let port = server.port;
    assert_says(
        &refusal(&format!("redis://127.0.0.1:{port}")).await,
        &["refused", "NOAUTH", "user and password of the URL"],
    );
    assert_says(
        &refusal(&format!("redis://:hunter2@127.0.0.1:{port}")).await,
        &["refused", "WRONGPASS", "user and password of the URL"],
    );
    let good = format!("redis://:p%2Fw%20%401%25@127.0.0.1:{port}");
    assert_says(
        &refusal(&format!("{good}/16")).await,
        &["refused", "no database of that number", "`databases`"],
    );
    works(&broker(&format!("{good}/15")).await.unwrap()).await;

    let mut admin = redis::Client::open(&*good).unwrap().get_multiplexed_async_connection().await.unwrap();
    let set_user = |rules: &'static [&'static str]| {
        let mut cmd = redis::cmd("ACL");
        cmd.arg("SETUSER").arg(rules);
        cmd
    };
    set_user(&["tasks", "on", ">hunter2", "~*", "&*", "+@all", "-@admin", "-@dangerous", "+info"])
        .exec_async(&mut admin)
        .await
        .unwrap();
    works(&broker(&format!("redis://tasks:hunter2@127.0.0.1:{port}/3")).await.unwrap()).await;
    let stored: bool = redis::pipe()
        .cmd("SELECT")
        .arg(3)
        .ignore()
        .exists("celery-task-meta-it-works")
        .query_async::<(bool,)>(&mut admin)
        .await
        .unwrap()
        .0;
    assert!(stored, "records are kept in the database of the URL");

    set_user(&["reader", "on", ">hunter2", "~*", "&*", "+@read", "+@connection"])
        .exec_async(&mut admin)
        .await
        .unwrap();
    let reader = broker(&format!("redis://reader:hunter2@127.0.0.1:{port}")).await.unwrap();
    let record = Record::new(TaskId::new("i").unwrap(), State::Success, "1");
    let error = reader
        .store(vec![Store { record, expires: None, reply_to: None, correlation_id: None }])
        .await
        .unwrap_err();
    assert_says(&shown(&error), &["refused", "NOPERM", "ACL SETUSER"]);
}

#[tokio::test]
async fn no_room_for_another_client() {
    let server = Server::with(&["--maxclients", "1"]);
    let _held = server.admin().await;
    assert_says(&refusal(&server.url()).await, &["unreachable", "max number of clients", "`maxclients`"]);
}

#[tokio::test]
async fn a_unix_socket() {
    let server = Server::with(&["--unixsocket", "{folder}/s p.sock", "--requirepass", "hunter2"]);
    let path = server.folder.path().join("s%20p.sock");
    let url = format!("redis+socket://:hunter2@{}?virtual_host=2", path.display());
    works(&broker(&url).await.unwrap()).await;
    let wrong = url.replace(":hunter2@", ":x@");
    assert_says(&refusal(&wrong).await, &["refused", "WRONGPASS", "redis+socket://***@"]);
}

#[tokio::test]
async fn a_list_is_tried_in_turn() {
    let (mut first, mut second) = (Server::start(), Server::start());
    let nobody = free_port();
    let list = format!("redis://127.0.0.1:{nobody};{};{}", first.url(), second.url());
    let redis = broker(&list).await.unwrap();
    works(&redis).await;
    assert!(first.admin().await.exists::<_, bool>("celery-task-meta-it-works").await.unwrap());

    // The first is gone: the call in hand fails, the next one goes to the second.
    first.kill();
    while redis.get(&[TaskId::new("i").unwrap()]).await.is_err() {}
    works(&redis).await;
    assert!(second.admin().await.exists::<_, bool>("celery-task-meta-it-works").await.unwrap());

    // It stays there though the first is back, and comes back to the first when the second goes.
    first.restart();
    works(&redis).await;
    second.kill();
    while redis.get(&[TaskId::new("i").unwrap()]).await.is_err() {}
    works(&redis).await;
    first.kill();
    assert_says(&refusal(&list).await, &["unreachable", "connection refused"]);
}

#[tokio::test]
async fn a_list_with_a_wrong_password_says_so() {
    let server = Server::with(&["--requirepass", "hunter2"]);
    let list = format!("redis://127.0.0.1:{};redis://:x@127.0.0.1:{}", free_port(), server.port);
    assert_says(&refusal(&list).await, &["refused", "WRONGPASS"]);
}
