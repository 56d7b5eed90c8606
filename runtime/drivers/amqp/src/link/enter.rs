//! From an address to a connection that has been let in: name, socket, TLS, login, virtual host.
//!
//! Each step fails with words of its own. All of them together end by one deadline, which no step begins anew.

use std::sync::{Mutex, PoisonError};

use async_rs::Runtime;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rwork_protocol::service::RedactedUrl;
use rwork_tls::{Failure, alerted, dial, secure};
use tokio::time::{Instant, timeout_at};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::kit::Kit;
use super::site::Door;
use super::stream::{Cuttable, Cutter, Transport};
use super::wire::Wire;
use crate::error::{WORDS, unwelcome};
use crate::url::Endpoint;

/// Until when a server must have let us in.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    /// How long that was from the beginning on, in seconds, for people.
    seconds: f64,
}

impl Deadline {
    fn at(at: Instant) -> Self {
        // To a tenth: of a list, each server has the rest of what there is for all.
        let seconds = (at.duration_since(Instant::now()).as_secs_f64() * 10.0).round() / 10.0;
        Self { at, seconds }
    }
}

/// Enters a server and its virtual host, or fails by then.
pub(super) async fn enter(
    endpoint: &Endpoint,
    door: &Door,
    purpose: &str,
    deadline: Instant,
) -> Result<Wire, Failure> {
    let url = endpoint.url();
    let deadline = Deadline::at(deadline);
    let stream = open(endpoint, &url, deadline).await?;
    let cutter = Cutter::default();
    let stream = Mutex::new(Some(Cuttable::new(stream, cutter.clone()).compat()));
    let connecting = Connection::connector(
        uri(endpoint, door),
        Runtime::new(Kit::current()),
        // The library asks once: its own trying again is off.
        async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected))?;
            Ok(AsyncTcpStream::Plain(stream))
        },
        properties(door, purpose),
    );
    let cut = cutter.clone().cut_on_drop();
    let entered = timeout_at(deadline.at, connecting).await.map_err(|_| mute(&url, deadline))?;
    match entered {
        Ok(connection) => {
            cut.disarm();
            Ok(Wire::new(connection, url, cutter))
        }
        Err(error) => Err(match cutter.alert() {
            // With TLS 1.3 a server looks at our certificate only when we believe to be in.
            Some(alert) => alerted(&url, alert, WORDS),
            None => unwelcome(&url, &error, &cutter.take_first(), &endpoint.vhost),
        }),
    }
}

fn uri(endpoint: &Endpoint, door: &Door) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: endpoint.username.clone(),
                password: endpoint.password.reveal().to_owned(),
            },
            host: endpoint.host.clone(),
            port: endpoint.port,
        },
        vhost: endpoint.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(endpoint.heartbeat_s.unwrap_or(door.heartbeat_s)),
            ..AMQPQueryString::default()
        },
    }
}

/// What the server's operators see of us.
fn properties(door: &Door, purpose: &str) -> ConnectionProperties {
    ConnectionProperties::default()
        .with_client_property("product".into(), "rwork".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
        .with_connection_name(format!("{} ({purpose})", door.name).into())
}

fn mute(url: &RedactedUrl, Deadline { seconds, .. }: Deadline) -> Failure {
    Failure::unreachable(
        url,
        format!("it takes connections, but has not answered within {seconds} s"),
        "that server hangs, is paused, or is not RabbitMQ: look at its log and its load",
    )
}

async fn open(
    endpoint: &Endpoint,
    url: &RedactedUrl,
    Deadline { at, seconds }: Deadline,
) -> Result<Box<dyn Transport>, Failure> {
    let late = |_| {
        let hint = "a firewall or a wrong address drops our packets, or that machine is down";
        Failure::unreachable(url, format!("no connection within {seconds} s"), hint)
    };
    let stream = timeout_at(at, dial(&endpoint.host, endpoint.port, url)).await.map_err(late)??;
    let Some(options) = &endpoint.tls else { return Ok(Box::new(stream)) };
    let secured = secure(stream, &endpoint.host, options, url, WORDS);
    let late = |_| {
        let what = format!("it takes connections, but has not answered our TLS handshake within {seconds} s");
        let hint = "use `amqp://` if that port is a plain one; otherwise that server hangs";
        Failure::unreachable(url, what, hint)
    };
    Ok(Box::new(timeout_at(at, secured).await.map_err(late)??))
}
