//! What all invocations of one sandbox share with their hosts.

use tokio::runtime::Handle;

use crate::egress::Egress;
use crate::mailbox::Mailbox;

/// Where host calls do their work.
#[derive(Debug)]
pub(crate) struct Services {
    /// The worker's I/O runtime: sockets and timers of guests live there, out of reach of busy guests.
    pub(crate) io: Handle,
    /// Outbound HTTP.
    pub(crate) egress: Egress,
    /// Reports on their way back.
    pub(crate) mailbox: Mailbox,
}
