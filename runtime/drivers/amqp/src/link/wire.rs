//! One connection, until it breaks.

use std::sync::OnceLock;

use futures_util::{Stream, StreamExt};
use lapin::{Channel, Connection, Event};
use rwork_net::Monitor;
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::greeting::Greeting;
use crate::error::explain;

/// Why the server takes nothing from a connection: `low on memory`, `low on disk`; `None`: it does.
pub(crate) type Blocked = Option<String>;

/// One connection, never made again. Many tasks may use it at once.
#[derive(Debug)]
pub(crate) struct Wire {
    connection: Connection,
    /// The server, for people.
    pub(crate) url: RedactedUrl,
    pub(crate) greeting: Greeting,
    pub(crate) agreed: Agreed,
    monitor: Monitor,
    /// Reads the connection's notices; ends with it.
    notices: OnceLock<AbortOnDropHandle<()>>,
}

/// What was agreed on with the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Channels at most; 0: no limit.
    pub(crate) channel_max: u16,
    /// Bytes of a frame at most; a message's properties and headers must fit into one.
    pub(crate) frame_max: u32,
    /// Seconds; 0: none.
    pub(crate) heartbeat_s: u16,
}

impl Wire {
    pub(super) fn new(connection: Connection, url: RedactedUrl, monitor: Monitor) -> Self {
        let configuration = connection.configuration();
        let agreed = Agreed {
            channel_max: configuration.channel_max(),
            frame_max: configuration.frame_max(),
            heartbeat_s: configuration.heartbeat(),
        };
        let greeting = Greeting::read(&monitor.take_first());
        Self { connection, url, greeting, agreed, monitor, notices: OnceLock::new() }
    }

    /// Opens a channel. Dropping it and its clones closes it.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        self.connection.create_channel().await.map_err(|error| explain(&self.url, "open a channel", error))
    }

    /// Whether the connection is lost: every further call fails.
    pub(crate) fn is_broken(&self) -> bool {
        !self.connection.status().connected() || self.lost().is_cancelled()
    }

    /// Cancelled when the connection is gone for good.
    pub(crate) fn lost(&self) -> &CancellationToken {
        self.monitor.lost()
    }

    /// Tells from now on whether the server takes anything.
    pub(super) fn tell_blocked(&self, blocked: watch::Sender<Blocked>) {
        let events = self.connection.events_listener();
        let (lost, url) = (self.lost().clone(), self.url.clone());
        blocked.send_replace(None);
        let telling = async move {
            tokio::select! {
                () = lost.cancelled() => {}
                () = tell(events, &blocked, &url) => {}
            }
        };
        self.notices.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(telling)));
    }
}

/// Passes the server's notices on, and logs each outage when it begins and when it ends.
async fn tell(events: impl Stream<Item = Event>, blocked: &watch::Sender<Blocked>, url: &RedactedUrl) {
    let mut events = std::pin::pin!(events);
    let mut since = Instant::now();
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(why) => {
                tracing::warn!(%url, why, "blocked: the server takes no messages until it has room again");
                since = Instant::now();
                blocked.send_replace(Some(why));
            }
            Event::ConnectionUnblocked => {
                tracing::info!(%url, seconds = since.elapsed().as_secs_f64(), "no longer blocked");
                blocked.send_replace(None);
            }
            _ => {}
        }
    }
}
