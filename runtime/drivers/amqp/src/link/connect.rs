//! From an address to a connection that has been let in: name, socket, TLS, login, virtual host.
//!
//! Each step fails with words of its own. All of them together end by one deadline, which no step begins anew.

use std::sync::{Mutex, PoisonError};

use async_rs::Runtime;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rwork_net::{Deadline, Failure, Monitor, MonitoredStream, alerted, open, unanswered};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::runtime::Kit;
use super::target::ConnectOptions;
use super::wire::Wire;
use crate::error::{WORDS, unwelcome};
use crate::url::Endpoint;

/// Connects to a server and its virtual host, by the deadline.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    purpose: &str,
    deadline: Deadline,
) -> Result<Wire, Failure> {
    let url = endpoint.url();
    let stream = open(&endpoint.host, endpoint.port, endpoint.tls.as_ref(), &url, WORDS, deadline).await?;
    let monitor = Monitor::default();
    let stream = Mutex::new(Some(MonitoredStream::new(stream, monitor.clone()).compat()));
    let connecting = Connection::connector(
        uri(endpoint, options),
        Runtime::new(Kit::current()),
        // The library asks once: its own trying again is off.
        async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected))?;
            Ok(AsyncTcpStream::Plain(stream))
        },
        properties(options, purpose),
    );
    let cut = monitor.cut_on_drop();
    let connected = deadline.bound(connecting, |seconds| unanswered(&url, WORDS, seconds)).await?;
    match connected {
        Ok(connection) => {
            cut.disarm();
            Ok(Wire::new(connection, url, monitor))
        }
        Err(error) => Err(match monitor.alert() {
            // With TLS 1.3 a server looks at our certificate only when we believe to be in.
            Some(alert) => alerted(&url, alert, WORDS),
            None => unwelcome(&url, &error, &monitor.take_first(), &endpoint.vhost),
        }),
    }
}

fn uri(endpoint: &Endpoint, options: &ConnectOptions) -> AMQPUri {
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
            heartbeat: Some(endpoint.heartbeat_s.unwrap_or(options.heartbeat_s)),
            ..AMQPQueryString::default()
        },
    }
}

/// What the server's operators see of us.
fn properties(options: &ConnectOptions, purpose: &str) -> ConnectionProperties {
    ConnectionProperties::default()
        .with_client_property("product".into(), "rwork".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
        .with_connection_name(format!("{} ({purpose})", options.name).into())
}
