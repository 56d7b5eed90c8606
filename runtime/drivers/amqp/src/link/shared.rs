//! A connection that is made again on demand, shared by many tasks.

use std::sync::Arc;

use rwork_net::{Connector, Failure, Reconnecting};
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::watch;

use super::target::Target;
use super::wire::{Blocked, Wire};

/// A connection that is made again on demand. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    shared: Reconnecting<ForPurpose>,
}

#[derive(Debug)]
struct ForPurpose {
    target: Arc<Target>,
    purpose: &'static str,
    /// Written by whichever connection stands.
    blocked: watch::Sender<Blocked>,
}

impl Connector for ForPurpose {
    type Connection = Wire;

    fn url(&self) -> &RedactedUrl {
        &self.target.url
    }

    async fn connect(&self) -> Result<Wire, Failure> {
        let wire = self.target.connect(self.purpose).await?;
        wire.tell_blocked(self.blocked.clone());
        Ok(wire)
    }

    fn is_lost(wire: &Wire) -> bool {
        wire.is_broken()
    }
}

impl Link {
    /// `purpose` is shown to the server's operators after our name.
    pub(crate) fn new(target: Arc<Target>, purpose: &'static str) -> Self {
        let blocked = watch::Sender::new(None);
        Self { shared: Reconnecting::new(ForPurpose { target, purpose, blocked }) }
    }

    /// The servers, for people.
    pub(crate) fn url(&self) -> &RedactedUrl {
        self.shared.connector().url()
    }

    /// Why the server takes nothing from this connection just now; `None`: it does.
    pub(crate) fn blocked(&self) -> watch::Receiver<Blocked> {
        self.shared.connector().blocked.subscribe()
    }

    /// Opens a channel, connecting where needed. Dropping the channel and its clones closes it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn channel(&self) -> Result<lapin::Channel, Error> {
        self.wire().await?.channel().await
    }

    /// The connection that stands, or a new one.
    ///
    /// # Cancel safety
    /// Cancel safe: an attempt goes on for whoever asks next.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, Failure> {
        self.shared.connection().await
    }
}
