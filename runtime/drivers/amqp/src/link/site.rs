//! Where to connect to and how: what every connection of one handle shares.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rwork_protocol::service::{Error, RedactedUrl};
use rwork_tls::Failure;

use super::enter::enter;
use super::wire::Wire;
use crate::options::Options;
use crate::url::Endpoint;

/// How to enter any server of a site.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) connect_timeout: Duration,
    pub(super) heartbeat_s: u16,
    /// The node's name.
    pub(super) name: String,
}

/// The servers of a URL.
#[derive(Debug)]
pub(crate) struct Site {
    /// All of them, for people.
    pub(crate) url: RedactedUrl,
    endpoints: Vec<Endpoint>,
    /// Which of them is tried first: the one that worked last.
    first: AtomicUsize,
    door: Door,
}

impl Site {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let door = Door {
            connect_timeout: options.connect_timeout,
            heartbeat_s: options.heartbeat_s,
            name: options.connection_name.clone(),
        };
        Ok(Self {
            url: options.redacted(),
            endpoints: options.endpoints()?,
            first: AtomicUsize::new(0),
            door,
        })
    }

    /// Each server once, beginning with the one that worked last. Of several failures the one that somebody must mend is
    /// told, or else the first. `purpose` is a word after our name for the server's operators.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Wire, Failure> {
        let begin = self.first.load(Ordering::Relaxed);
        let count = self.endpoints.len();
        let mut told: Option<Failure> = None;
        for (place, endpoint) in self.endpoints.iter().enumerate().cycle().skip(begin).take(count) {
            match enter(endpoint, &self.door, purpose).await {
                Ok(wire) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(wire);
                }
                Err(failure) => told = Some(Failure::or_worse(told, failure)),
            }
        }
        Err(told.unwrap_or_else(|| Failure::unreachable(&self.url, "no server is named", "")))
    }
}
