//! From an address to a connection that has been let in: names, sockets, TLS, login, and what the server is.
//!
//! Each step fails with words of its own. All of them together end in time.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use rwork_protocol::service::RedactedUrl;
use rwork_tls::{Failure, alerted, dial, no_socket, secure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::pulse::{Pulse, Pulsing};
use super::site::Pushes;
use super::wire::{Greeting, Parts, Wire};
use crate::error::{self, CLUSTER_HINT, WORDS};
use crate::url::{Address, Endpoint, Login};

/// The oldest server whose scripts and commands do what rwork needs.
const VERSION_MIN: (u32, u32) = (6, 2);

/// How to enter any server of a site.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) connect_timeout: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) client_name: String,
}

/// Anything that bytes go through.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Enters a Redis server and its database.
pub(super) async fn enter(endpoint: &Endpoint, door: &Door, pushes: Option<Pushes>) -> Result<Wire, Failure> {
    let url = endpoint.url();
    let deadline = Instant::now() + door.connect_timeout;
    let mut parts = knock(endpoint, door, pushes).await?;
    let mut connection = parts.connection.clone();
    let greeted = greet(&mut connection, &endpoint.login, &url, &door.client_name);
    parts.greeting = timeout_at(deadline, greeted).await.map_err(|_| mute(&url, door))??;
    check(&url, &parts.greeting)?;
    Ok(Wire::new(parts))
}

/// Reaches a server of any kind, and logs in.
pub(super) async fn knock(
    endpoint: &Endpoint,
    door: &Door,
    pushes: Option<Pushes>,
) -> Result<Parts, Failure> {
    let url = endpoint.url();
    let deadline = Instant::now() + door.connect_timeout;
    let stream = open(endpoint, &url, door, deadline).await?;
    let pulse = Pulse::new();
    let stream = Pulsing { stream, pulse: pulse.clone() };
    let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    if let Some(tell) = pushes {
        config = config.set_push_sender(move |info: PushInfo| {
            tell(info);
            Ok::<_, redis::aio::SendError>(())
        });
    }
    let info = credentials(&endpoint.login);
    let entered = MultiplexedConnection::new_with_config(&info, stream, config);
    let entered = timeout_at(deadline, entered).await.map_err(|_| mute(&url, door))?;
    let (connection, driver) = entered.map_err(|error| match pulse.alert() {
        // With TLS 1.3 a server looks at our certificate only when we believe to be in.
        Some(alert) => alerted(&url, alert, WORDS),
        None => error::unwelcome(&url, &error),
    })?;
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    let (greeting, patience) = (Greeting::default(), door.answer_timeout);
    Ok(Parts { connection, driver, url, greeting, patience, pulse })
}

fn credentials(login: &Login) -> RedisConnectionInfo {
    let mut info =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.reveal());
    }
    info
}

fn mute(url: &RedactedUrl, door: &Door) -> Failure {
    let seconds = door.connect_timeout.as_secs_f64();
    Failure::unreachable(
        url,
        format!("it takes connections, but has not answered within {seconds} s"),
        "that server hangs, is paused, or is not Redis: look at its log and its load",
    )
}

async fn open(
    endpoint: &Endpoint,
    url: &RedactedUrl,
    door: &Door,
    deadline: Instant,
) -> Result<Box<dyn Stream>, Failure> {
    let (host, port) = match &endpoint.address {
        Address::Unix(path) => {
            let opened = timeout_at(deadline, UnixStream::connect(path)).await;
            let stream = opened.map_err(|_| mute(url, door))?.map_err(|error| no_socket(url, &error))?;
            return Ok(Box::new(stream));
        }
        Address::Tcp(host, port) => (host, *port),
    };
    let late = |_| {
        let seconds = door.connect_timeout.as_secs_f64();
        let what = format!("no connection within {seconds} s");
        Failure::unreachable(
            url,
            what,
            "a firewall or a wrong address drops our packets, or that machine is down",
        )
    };
    let stream = timeout_at(deadline, dial(host, port, url)).await.map_err(late)??;
    let Some(options) = &endpoint.login.tls else { return Ok(Box::new(stream)) };
    let secured = secure(stream, host, options, url, WORDS);
    let late = |_| {
        let seconds = door.connect_timeout.as_secs_f64();
        let what = format!("it takes connections, but has not answered our TLS handshake within {seconds} s");
        Failure::unreachable(
            url,
            what,
            "use `redis://` if that port is a plain one; otherwise that server hangs",
        )
    };
    Ok(Box::new(timeout_at(deadline, secured).await.map_err(late)??))
}

/// Asks what the server is, enters the database, and says who we are.
async fn greet(
    connection: &mut MultiplexedConnection,
    login: &Login,
    url: &RedactedUrl,
    name: &str,
) -> Result<Greeting, Failure> {
    let mut pipe = redis::pipe();
    pipe.cmd("HELLO");
    // Names are for people: a server that refuses them is none the worse.
    pipe.cmd("CLIENT").arg("SETNAME").arg(name);
    if login.db != 0 {
        pipe.cmd("SELECT").arg(login.db);
    }
    let unwelcome = |error: redis::RedisError| error::unwelcome(url, &error);
    let answers = connection.send_packed_commands(&pipe, 0, pipe.len()).await.map_err(unwelcome)?;
    let mut answers = answers.into_iter();
    let hello = answers.next().unwrap_or_default().extract_error().map_err(unwelcome)?;
    if let Some(selected) = answers.nth(1) {
        selected.extract_error().map_err(unwelcome)?;
    }
    Ok(read_greeting(&hello))
}

fn read_greeting(hello: &Value) -> Greeting {
    let mut greeting = Greeting::default();
    for (key, value) in hello.as_map_iter().into_iter().flatten() {
        if let (Some("id"), Value::Int(id)) = (text(key), value) {
            greeting.id = *id;
        }
        let (Some(key), Some(value)) = (text(key), text(value)) else { continue };
        match key {
            "version" => greeting.version = value.to_owned(),
            "mode" => greeting.mode = value.to_owned(),
            "role" => greeting.role = value.to_owned(),
            _ => {}
        }
    }
    greeting
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn check(url: &RedactedUrl, greeting: &Greeting) -> Result<(), Failure> {
    let mut numbers = greeting.version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    match greeting.mode.as_str() {
        "cluster" => return Err(Failure::refused(url, "it is a node of a cluster", CLUSTER_HINT)),
        "sentinel" => {
            let hint = "use `sentinel://` and the transport option `master_name`";
            return Err(Failure::refused(url, "it is a sentinel, which keeps no messages", hint));
        }
        _ => {}
    }
    if version < VERSION_MIN { Err(error::too_old(url, &greeting.version)) } else { Ok(()) }
}
