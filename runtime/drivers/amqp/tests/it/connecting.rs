//! Each way in, and each way to be turned away, with words and a hint of its own. That each is told within five seconds is
//! looked at on a paused clock: see `deadline`.

use std::time::Duration;

use rwork_amqp::{Amqp, Error, Options, Role};
use rwork_broker::{Broker, Publish, Route};
use rwork_protocol::{Message, QueueName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::rabbitmq::RabbitServer;

/// A wait that is longer has no end.
const HANG: Duration = Duration::from_secs(60);

/// Kind, whole chain and hint, in one line.
pub(crate) fn shown(error: &Error) -> String {
    let kind = match error {
        Error::Unreachable { .. } => "unreachable",
        Error::Refused { .. } => "refused",
        Error::Url { .. } => "url",
        _ => "other",
    };
    let below = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{kind}: {error}{below} [{}]", error.hint().unwrap_or("no hint"))
}

pub(crate) async fn refusal(url: &str) -> String {
    let options = Options::parse(url, Role::Broker).unwrap();
    match timeout(HANG, Amqp::connect(options)).await.expect("an answer") {
        Err(error) => {
            let line = shown(&error);
            assert!(!line.contains("hunter2"), "{line}");
            line
        }
        Ok(_) => panic!("expected a refusal"),
    }
}

pub(crate) async fn connect(url: &str) -> Amqp {
    Amqp::connect(Options::parse(url, Role::Broker).unwrap()).await.unwrap()
}

/// Publishes something and finds it counted.
pub(crate) async fn works(amqp: &Amqp) {
    let queue = QueueName::new("works").unwrap();
    let message = Message { body: "x".into(), ..Message::default() };
    amqp.publish_all(vec![Publish { route: Route::queue(&queue), message, not_before: None }]).await.unwrap();
    assert_eq!(amqp.purge(&queue).await.unwrap(), 1);
}

/// Answers each connection with these bytes once it has spoken; with none, never.
async fn pretender(answer: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match answer {
                None => held.push(stream),
                Some(answer) => {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(answer).await;
                }
            }
        }
    });
    format!("amqp://me:hunter2@127.0.0.1:{port}/v")
}

#[tokio::test]
async fn whoever_does_not_listen_is_told_from_whoever_has_no_name() {
    let port = crate::child::free_port().unwrap();
    assert_eq!(
        refusal(&format!("amqp://me:hunter2@127.0.0.1:{port}")).await,
        format!(
            "unreachable: failed to reach amqp://***@127.0.0.1:{port}/: connection refused \
             [start the server there, or check host and port]"
        )
    );
    assert_eq!(
        refusal("amqp://me:hunter2@no-such-host.invalid/v").await,
        "unreachable: failed to reach amqp://***@no-such-host.invalid:5672/v: found no address of \
         `no-such-host.invalid` [check the host name, and the DNS server]"
    );
}

#[tokio::test]
async fn users_and_virtual_hosts_are_told_apart() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    server.add_user("lena", "hunter2").await.unwrap();
    let place = server.url(&vhost).replace("guest:guest@", "***@");
    for (user, password) in [("lena", "hunter22"), ("nobody", "hunter2")] {
        let line = refusal(&server.url_of(user, password, &vhost)).await;
        let expect =
            format!("refused: {place} refused: it does not know this user with this password [check user");
        assert!(line.starts_with(&expect), "{line}");
    }
    let line = refusal(&server.url_of("lena", "hunter2", "elsewhere")).await;
    assert!(
        line.contains("it has no virtual host `elsewhere` [create it by `rabbitmqctl add_vhost elsewhere`"),
        "{line}"
    );
    let line = refusal(&server.url_of("lena", "hunter2", &vhost)).await;
    let expect = format!(
        "this user may not enter the virtual host `{vhost}` [allow it by `rabbitmqctl set_permissions"
    );
    assert!(line.contains(&expect), "{line}");
    server.permit("lena", &vhost).await.unwrap();
    works(&connect(&server.url_of("lena", "hunter2", &vhost)).await).await;
}

#[tokio::test]
async fn strangers_are_told_apart() {
    for (answer, expect) in [
        (
            None,
            "it takes connections, but has not answered within 4 s [that server hangs, is paused, or is not RabbitMQ",
        ),
        (Some(&b""[..]), "it closed the connection without a word [if that is a TLS port, use `amqps://`"),
        (
            Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "does not speak AMQP [check host and port of the URL (15672",
        ),
        (Some(b"-ERR unknown command\r\n"), "does not speak AMQP"),
        (Some(b"AMQP\x00\x01\x00\x00"), "it speaks another version of AMQP [rwork needs AMQP 0-9-1"),
        (Some(b"\x15\x03\x03\x00\x02\x02\x46"), "that port speaks TLS [use `amqps://`"),
    ] {
        let line = refusal(&pretender(answer).await).await;
        assert!(line.contains(expect), "{line}");
    }
}

#[tokio::test]
async fn a_list_is_tried_in_its_order_and_whoever_must_mend_something_is_told() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let closed = format!("amqp://127.0.0.1:{}", crate::child::free_port().unwrap());
    works(&connect(&format!("{closed};{}", server.url(&vhost))).await).await;
    let line = refusal(&format!("{closed};{}", server.url_of("guest", "hunter2", &vhost))).await;
    assert!(line.contains("it does not know this user"), "{line}");
    // One that takes connections and keeps silent is given its turn, and no more.
    let silent = pretender(None).await;
    works(&connect(&format!("{silent};{}", server.url(&vhost))).await).await;
    let line = refusal(&format!("{silent};{closed}")).await;
    assert!(line.contains(&silent.replace("me:hunter2@", "***@")), "the first of the list: {line}");
}

#[tokio::test]
async fn errors_name_the_servers_and_none_of_their_parameters() {
    let server = RabbitServer::shared();
    let (tls, plain) = (server.tls_url("one"), server.url("two"));
    let vhost = server.fresh_vhost().await.unwrap();
    let amqp = connect(&format!("{}?heartbeat=17;{tls};{plain}", server.url(&vhost))).await;
    let route = Route { exchange: "nowhere".to_owned(), routing_key: "works".to_owned() };
    let sent = amqp.publish_all(vec![Publish { route, message: Message::default(), not_before: None }]).await;
    let line = shown(&sent.unwrap_err());
    let (plain, tls) = (server.port(), server.tls_port());
    let servers = format!(
        "amqp://***@127.0.0.1:{plain}/{vhost};amqps://***@localhost:{tls}/one;amqp://***@127.0.0.1:{plain}/two: "
    );
    assert!(line.contains(&servers), "{line}");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_made_again() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let amqp = connect(&server.url(&vhost)).await;
    works(&amqp).await;
    for _ in 0..3 {
        let closed = server.close_connections(&vhost, "maintenance").await.unwrap();
        assert!(closed >= 1, "there was a connection to be closed");
        let again = async {
            let queue = QueueName::new("again").unwrap();
            loop {
                match amqp.purge(&queue).await {
                    Ok(_) => break,
                    // The first to come after the loss may still hear of it.
                    Err(error) => assert!(matches!(error, Error::Unreachable { .. }), "{}", shown(&error)),
                }
            }
        };
        timeout(HANG, again).await.expect("a new connection");
    }
    works(&amqp).await;
}

#[tokio::test]
async fn a_wrong_setting_is_found_before_anything_is_tried() {
    let with = |change: fn(&mut Options)| {
        let mut options = Options::parse("amqp://127.0.0.1:1", Role::Broker).unwrap();
        change(&mut options);
        options
    };
    for (options, expect) in [
        (
            with(|options| options.message_bytes_max = 0),
            "expected `message_bytes_max` to be 1..=536870912 (not 0)",
        ),
        (with(|options| options.connect_timeout = Duration::from_secs(5)), "at most 4 s (not 5)"),
        (
            with(|options| options.consumer_timeout = Duration::from_millis(1)),
            "`consumer_timeout` to be 0 or at least 1 s",
        ),
        (with(|options| options.max_priority = Some(0)), "`task_queue_max_priority` to be 1..=255 (not 0)"),
    ] {
        let error = Amqp::connect(options).await.unwrap_err();
        assert!(shown(&error).contains(expect), "{}", shown(&error));
    }
}

#[tokio::test]
async fn operators_see_who_is_connected() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let mut options = Options::parse(&format!("{}?heartbeat=17", server.url(&vhost)), Role::Broker).unwrap();
    options.connection_name = "w1@host".to_owned();
    let amqp = Amqp::connect(options).await.unwrap();
    works(&amqp).await;
    let expression = format!(
        "lists:sort([{{N, P, T}} || Pid <- rabbit_networking:connections(), \
         [{{vhost, <<\"{vhost}\">>}}, {{client_properties, C}}, {{timeout, T}}] <- \
         [rabbit_networking:connection_info(Pid, [vhost, client_properties, timeout])], \
         {{<<\"connection_name\">>, _, N}} <- C, {{<<\"product\">>, _, P}} <- C])"
    );
    let seen = server.eval(&expression).await.unwrap();
    let expect =
        serde_json::json!([["w1@host (consuming)", "rwork", 17], ["w1@host (publishing)", "rwork", 17]]);
    assert_eq!(seen, expect);
}
