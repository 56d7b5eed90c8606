//! Where to connect to and how: what every connection of one handle shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::PushInfo;
use rwork_protocol::service::{Error, RedactedUrl};
use rwork_tls::Failure;

use super::connect::{Door, enter};
use super::sentinel::Sentinels;
use super::wire::Wire;
use crate::error::REPLICA_HINT;
use crate::options::Options;
use crate::url::{Endpoint, Servers};

/// A server that is there answers within milliseconds; one on the other side of the world within a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest script and the longest fork of a large server stay below; a paused server is told by it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CLIENT_NAME: &str = "rwork";

/// Whoever is told what a server says unasked. Must not block.
pub(crate) type Pushes = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// The servers of a URL.
#[derive(Debug)]
pub(crate) struct Site {
    /// All of them, for people.
    pub(crate) url: RedactedUrl,
    whom: Whom,
    door: Door,
}

#[derive(Debug)]
enum Whom {
    /// The servers, and which of them is tried first: the one that worked last.
    Direct(Vec<Endpoint>, AtomicUsize),
    Sentinel(Sentinels),
}

impl Site {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let url = options.redacted();
        let transport = &options.transport;
        let door = Door {
            connect_timeout: transport.socket_connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            answer_timeout: transport.socket_timeout.unwrap_or(ANSWER_TIMEOUT),
            client_name: transport.client_name.clone().unwrap_or_else(|| CLIENT_NAME.to_owned()),
        };
        let whom = match options.servers()? {
            Servers::Direct(endpoints) => {
                endpoints.iter().for_each(warn_of_trust);
                Whom::Direct(endpoints, AtomicUsize::new(0))
            }
            Servers::Sentinel(addresses, login) => {
                let name = transport.master_name.clone().ok_or_else(|| Error::Url {
                    url: url.clone(),
                    expected: "the transport option `master_name` with `sentinel://`".to_owned(),
                })?;
                Whom::Sentinel(Sentinels::new(
                    addresses,
                    name,
                    &transport.sentinel_kwargs,
                    login,
                    url.clone(),
                ))
            }
        };
        Ok(Self { url, whom, door })
    }

    /// How long a connection may take to make.
    pub(crate) fn dial_deadline(&self) -> Duration {
        self.door.connect_timeout
    }

    /// Makes a connection to the first server that lets us in and is a master.
    pub(crate) async fn connect(&self, pushes: Option<Pushes>) -> Result<Wire, Failure> {
        match &self.whom {
            Whom::Direct(endpoints, first) => self.any(endpoints, first, pushes).await,
            Whom::Sentinel(sentinels) => {
                let master = sentinels.master(&self.door).await?;
                enter(&master, &self.door, pushes).await.and_then(|wire| mastered(wire, sentinels))
            }
        }
    }

    /// Each server once, beginning with the one that worked last. Of several failures the one that somebody must mend is
    /// told, or else the first.
    async fn any(
        &self,
        endpoints: &[Endpoint],
        first: &AtomicUsize,
        pushes: Option<Pushes>,
    ) -> Result<Wire, Failure> {
        let begin = first.load(Ordering::Relaxed);
        let mut told: Option<Failure> = None;
        for (place, endpoint) in endpoints.iter().enumerate().cycle().skip(begin).take(endpoints.len()) {
            match enter(endpoint, &self.door, pushes.clone()).await.and_then(writable) {
                Ok(wire) => {
                    first.store(place, Ordering::Relaxed);
                    return Ok(wire);
                }
                Err(failure) => told = Some(Failure::or_worse(told, failure)),
            }
        }
        Err(told.unwrap_or_else(|| Failure::unreachable(&self.url, "no server is named", "")))
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
