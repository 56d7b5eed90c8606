//! Where to connect to and how: what every connection of one handle shares.

use std::sync::Arc;
use std::time::Duration;

use redis::PushInfo;
use rwork_net::{Deadline, Failure, ServerList};
use rwork_protocol::service::{Error, RedactedUrl};

use super::connect::connect;
use super::sentinel::Sentinels;
use super::wire::Wire;
use crate::error::REPLICA_HINT;
use crate::options::Options;
use crate::url::{Endpoint, Servers};

/// A server that is there answers within milliseconds; one on the other side of the world within a second. Whoever waits is
/// told within five, by us.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest script and the longest fork of a large server stay below; a paused server is told by it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CLIENT_NAME: &str = "rwork";

/// Callback for RESP3 push messages. Must not block.
pub(crate) type Pushes = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// How to connect to any server of a target.
#[derive(Clone, Debug)]
pub(super) struct ConnectOptions {
    /// For the whole list, sentinels included.
    timeout: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) client_name: String,
}

/// The servers of a URL.
#[derive(Debug)]
pub(crate) struct Target {
    /// All of them, for people.
    pub(crate) url: RedactedUrl,
    servers: Arc<Named>,
    options: ConnectOptions,
}

#[derive(Debug)]
enum Named {
    Direct(ServerList<Endpoint>),
    BySentinels(Sentinels),
}

impl Target {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let url = options.redacted();
        let transport = &options.transport;
        let servers = match options.servers()? {
            Servers::Direct(endpoints) => {
                endpoints.iter().for_each(warn_of_trust);
                Named::Direct(ServerList::new(url.clone(), endpoints, Endpoint::url))
            }
            Servers::Sentinel(addresses, login) => {
                let name = transport.master_name.clone().ok_or_else(|| Error::Url {
                    url: url.clone(),
                    expected: "the transport option `master_name` with `sentinel://`".to_owned(),
                })?;
                let options = &transport.sentinel_kwargs;
                Named::BySentinels(Sentinels::new(addresses, name, options, login, url.clone()))
            }
        };
        let options = ConnectOptions {
            timeout: transport.socket_connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            answer_timeout: transport.socket_timeout.unwrap_or(ANSWER_TIMEOUT),
            client_name: transport.client_name.clone().unwrap_or_else(|| CLIENT_NAME.to_owned()),
        };
        Ok(Self { url, servers: Arc::new(servers), options })
    }

    /// Returns a target of these servers for calls that must not miss a lease: a connection that is not made, or falls silent,
    /// is given up in time for another one. Together they take no longer than nine tenths of a lease.
    pub(crate) fn within_lease(&self, lease: Duration) -> Self {
        let options = ConnectOptions {
            timeout: self.options.timeout.min(lease * 3 / 10),
            answer_timeout: self.options.answer_timeout.min(lease * 6 / 10),
            ..self.options.clone()
        };
        Self { url: self.url.clone(), servers: Arc::clone(&self.servers), options }
    }

    /// How long a connection may take to make.
    pub(crate) fn dial_deadline(&self) -> Duration {
        self.options.timeout
    }

    /// Makes a connection to the first server that lets us in and is a master.
    pub(crate) async fn connect(&self, pushes: Option<Pushes>) -> Result<Wire, Failure> {
        let deadline = Deadline::after(self.dial_deadline());
        match &*self.servers {
            Named::Direct(servers) => {
                let attempt = |endpoint: Endpoint, deadline| {
                    let pushes = pushes.clone();
                    async move { connect(&endpoint, &self.options, pushes, deadline).await.and_then(writable) }
                };
                servers.connect(deadline, attempt).await
            }
            Named::BySentinels(sentinels) => {
                let master = sentinels.master(&self.options, deadline).await?;
                let wire = connect(&master, &self.options, pushes, deadline.rest()).await?;
                mastered(wire, sentinels)
            }
        }
    }
}

/// Once for a handle, not for each of its connections.
fn warn_of_trust(endpoint: &Endpoint) {
    if endpoint.login.tls.as_ref().is_some_and(|tls| tls.is_default) {
        tracing::warn!(url = %endpoint.url(), "the server's certificate is not verified: add `ssl_cert_reqs=required` to the URL");
    }
}

/// A replica takes no messages: entering one would only fail later.
fn writable(wire: Wire) -> Result<Wire, Failure> {
    if wire.greeting.role == "replica" || wire.greeting.role == "slave" {
        return Err(Failure::refused(&wire.url, "it is a read-only replica", REPLICA_HINT));
    }
    Ok(wire)
}

/// The sentinels may not have noticed yet that another one is the master now.
fn mastered(wire: Wire, sentinels: &Sentinels) -> Result<Wire, Failure> {
    writable(wire).map_err(|failure| match failure {
        Failure::Refused { url, .. } => Failure::unreachable(
            &url,
            format!("it is a replica, though the sentinels call it the master of `{}`", sentinels.name()),
            "a fail-over is going on; if this lasts, look at the sentinels' logs",
        ),
        other => other,
    })
}
