//! From an address to a connection that has been let in: names, sockets, TLS, login, and what the server is.
//!
//! Each step fails with words of its own. All of them together end by one deadline.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use rwork_net::{
    Deadline, Failure, Monitor, MonitoredStream, Transport, alerted, no_socket, open, unanswered,
};
use rwork_protocol::service::RedactedUrl;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::target::{ConnectOptions, Pushes};
use super::wire::{Greeting, Wire};
use crate::error::{self, CLUSTER_HINT, WORDS};
use crate::reply;
use crate::url::{Address, Endpoint, Login};

/// The oldest server whose scripts and commands do what rwork needs.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Connects to a Redis server and its database.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    pushes: Option<Pushes>,
    deadline: Deadline,
) -> Result<Wire, Failure> {
    let url = endpoint.url();
    let mut wire = log_in(endpoint, options, pushes, deadline).await?;
    let greeted = handshake(&mut wire.connection, &endpoint.login, &url, &options.client_name);
    wire.greeting = deadline.bound(greeted, |seconds| unanswered(&url, WORDS, seconds)).await??;
    check(&url, &wire.greeting)?;
    Ok(wire)
}

/// Reaches a server of any kind, and logs in.
pub(super) async fn log_in(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    pushes: Option<Pushes>,
    deadline: Deadline,
) -> Result<Wire, Failure> {
    let url = endpoint.url();
    let unanswered = |seconds| unanswered(&url, WORDS, seconds);
    let stream: Box<dyn Transport> = match &endpoint.address {
        Address::Unix(path) => {
            let opened = deadline.bound(UnixStream::connect(path), unanswered).await?;
            Box::new(opened.map_err(|error| no_socket(&url, &error))?)
        }
        Address::Tcp(host, port) => {
            open(host, *port, endpoint.login.tls.as_ref(), &url, WORDS, deadline).await?
        }
    };
    let monitor = Monitor::default();
    let stream = MonitoredStream::new(stream, monitor.clone());
    let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    if let Some(tell) = pushes {
        config = config.set_push_sender(move |info: PushInfo| {
            tell(info);
            Ok::<_, redis::aio::SendError>(())
        });
    }
    let info = credentials(&endpoint.login);
    let entered = MultiplexedConnection::new_with_config(&info, stream, config);
    let (connection, driver) =
        deadline.bound(entered, unanswered).await?.map_err(|error| match monitor.alert() {
            // With TLS 1.3 a server looks at our certificate only when we believe to be in.
            Some(alert) => alerted(&url, alert, WORDS),
            None => error::unwelcome(&url, &error),
        })?;
    // Redis says what it is when it is asked.
    drop(monitor.take_first());
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    let (broken, greeting, patience) = (AtomicBool::new(false), Greeting::default(), options.answer_timeout);
    Ok(Wire { connection, driver, broken, url, greeting, patience, monitor })
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

/// Asks what the server is, enters the database, and says who we are.
async fn handshake(
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
    Ok(read_greeting(hello))
}

fn read_greeting(hello: Value) -> Greeting {
    let facts: HashMap<String, Value> = redis::from_redis_value(hello).unwrap_or_default();
    let text = |name| facts.get(name).cloned().and_then(reply::text).unwrap_or_default();
    Greeting { version: text("version"), mode: text("mode"), role: text("role") }
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
