//! From an address to a connection that has been let in: name, socket, TLS, login, virtual host.
//!
//! Each step fails with words of its own. All of them together end in time.

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

/// Enters a server and its virtual host.
pub(super) async fn enter(endpoint: &Endpoint, door: &Door, purpose: &str) -> Result<Wire, Failure> {
    let url = endpoint.url();
    let deadline = Instant::now() + door.connect_timeout;
    let stream = open(endpoint, &url, door, deadline).await?;
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
    let entered = timeout_at(deadline, connecting).await.map_err(|_| mute(&url, door))?;
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

fn mute(url: &RedactedUrl, door: &Door) -> Failure {
    let seconds = door.connect_timeout.as_secs_f64();
    Failure::unreachable(
        url,
        format!("it takes connections, but has not answered within {seconds} s"),
        "that server hangs, is paused, or is not RabbitMQ: look at its log and its load",
    )
}

async fn open(
    endpoint: &Endpoint,
    url: &RedactedUrl,
    door: &Door,
    deadline: Instant,
) -> Result<Box<dyn Transport>, Failure> {
    let seconds = door.connect_timeout.as_secs_f64();
    let late = |_| {
        let hint = "a firewall or a wrong address drops our packets, or that machine is down";
        Failure::unreachable(url, format!("no connection within {seconds} s"), hint)
    };
    let stream = timeout_at(deadline, dial(&endpoint.host, endpoint.port, url)).await.map_err(late)??;
    let Some(options) = &endpoint.tls else { return Ok(Box::new(stream)) };
    let secured = secure(stream, &endpoint.host, options, url, WORDS);
    let late = |_| {
        let what = format!("it takes connections, but has not answered our TLS handshake within {seconds} s");
        let hint = "use `amqp://` if that port is a plain one; otherwise that server hangs";
        Failure::unreachable(url, what, hint)
    };
    Ok(Box::new(timeout_at(deadline, secured).await.map_err(late)??))
}
