//! Facts about a server, for `rwork doctor`. Judges nothing, changes nothing.

use std::time::Duration;

use rwork_protocol::service::Error;

use crate::handle::Amqp;

/// What a server says of itself, and what was measured.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Examination {
    /// The server that was examined, without its password: of a fail-over list the one in use.
    pub server: String,
    /// Channels of a connection at most; 0: no limit.
    pub channel_max: u16,
    /// Bytes of a frame at most; a message's headers and properties must fit into one.
    pub frame_max: u32,
    /// Seconds between heartbeats; 0: none.
    pub heartbeat_s: u16,
    /// Round trips, in the order they were made.
    pub round_trips: Vec<Duration>,
}

impl Amqp {
    /// Asks the server what it is and how it fares.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub async fn examine(&self) -> Result<Examination, Error> {
        let wire = self.inner.publishing.wire().await?;
        Ok(Examination {
            server: wire.url.to_string(),
            channel_max: wire.greeting.channel_max,
            frame_max: wire.greeting.frame_max,
            heartbeat_s: wire.greeting.heartbeat_s,
            round_trips: Vec::new(),
        })
    }
}
