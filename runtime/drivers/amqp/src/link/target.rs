//! Place to connect to, and the way: what every connection of one handle shares.

use std::time::Duration;

use rwork_net::{Deadline, Failure, ServerList};
use rwork_protocol::service::{Error, RedactedUrl};

use super::connect::connect;
use super::wire::Wire;
use crate::options::Options;
use crate::url::Endpoint;

/// How to connect to any server of a target.
#[derive(Clone, Debug)]
pub(super) struct ConnectOptions {
    timeout: Duration,
    pub(super) heartbeat_s: u16,
    /// The node's name.
    pub(super) name: String,
}

/// The servers of a URL.
#[derive(Debug)]
pub(crate) struct Target {
    /// All of them, for people.
    pub(crate) url: RedactedUrl,
    servers: ServerList<Endpoint>,
    options: ConnectOptions,
}

impl Target {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let url = options.servers()?;
        let servers = ServerList::new(url.clone(), options.endpoints()?, Endpoint::url);
        let options = ConnectOptions {
            timeout: options.connect_timeout,
            heartbeat_s: options.heartbeat_s,
            name: options.connection_name.clone(),
        };
        Ok(Self { url, servers, options })
    }

    /// Connects to the first server that lets us in. `purpose` is a word after our name for the server's operators.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Wire, Failure> {
        let attempt = |endpoint: Endpoint, deadline| async move {
            connect(&endpoint, &self.options, purpose, deadline).await
        };
        self.servers.connect(Deadline::after(self.options.timeout), attempt).await
    }
}
