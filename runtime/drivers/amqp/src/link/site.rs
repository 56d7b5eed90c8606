//! Where to connect to and how: what every connection of one handle shares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rwork_protocol::service::{Error, RedactedUrl};
use rwork_tls::Failure;
use tokio::time::{Instant, sleep};

use super::enter::enter;
use super::wire::Wire;
use crate::error::chain;
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
            url: options.servers()?,
            endpoints: options.endpoints()?,
            first: AtomicUsize::new(0),
            door,
        })
    }

    /// The first server that lets us in, beginning with the one that worked last. `purpose` is a word after our name for
    /// the server's operators.
    ///
    /// One deadline holds for the whole list, however long it is: whoever waits is told within it. The next server is asked
    /// when the one before has failed, or has kept silent for its turn; it may still be the first to answer. Of several
    /// failures the one that somebody must mend is told, or else that of the server that comes first.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Wire, Failure> {
        let deadline = Instant::now() + self.door.connect_timeout;
        let turn = self.turn();
        let mut waiting = self.in_order().enumerate();
        let mut attempts = FuturesUnordered::new();
        let mut failures = BTreeMap::new();
        loop {
            let next = waiting.next();
            let is_last = next.is_none();
            attempts.extend(next.map(async |(rank, (place, endpoint))| {
                (rank, place, enter(endpoint, &self.door, purpose, deadline).await)
            }));
            tokio::select! {
                ended = attempts.next() => match ended {
                    Some((_, place, Ok(wire))) => {
                        self.entered(place, &wire, worst(failures));
                        return Ok(wire);
                    }
                    Some((rank, _, Err(failure))) => drop(failures.insert(rank, failure)),
                    None => break,
                },
                () = sleep(turn), if !is_last => {}
            }
        }
        Err(worst(failures).unwrap_or_else(|| Failure::unreachable(&self.url, "no server is named", "")))
    }

    /// Half of the time is shared out among the turns, so that the last server, too, has the other half.
    fn turn(&self) -> Duration {
        let servers = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX).max(1);
        self.door.connect_timeout / 2 / servers
    }

    /// Each once, with its place in the list.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        let begin = self.first.load(Ordering::Relaxed);
        self.endpoints.iter().enumerate().cycle().skip(begin).take(self.endpoints.len())
    }

    /// Says so when it is another server than before.
    fn entered(&self, place: usize, wire: &Wire, failure: Option<Failure>) {
        if self.first.swap(place, Ordering::Relaxed) == place {
            return;
        }
        let why = failure.map(Error::from);
        let error = why.as_ref().map_or_else(|| "no answer in its turn".to_owned(), |why| chain(why));
        let hint = why.as_ref().and_then(Error::hint);
        tracing::warn!(url = %wire.url, error, hint, "moved on to another server of the list");
    }
}

fn worst(failures: BTreeMap<usize, Failure>) -> Option<Failure> {
    failures.into_values().fold(None, |told, failure| Some(Failure::or_worse(told, failure)))
}
