//! Connections to message servers: what the drivers have in common.
//!
//! In the order of a connection's life: the parts of a URL ([`Parts`], [`TlsOptions`]), the servers of a list
//! ([`ServerList`]), a socket to one of a host's addresses ([`dial`]), TLS ([`secure`]), a watched stream
//! ([`MonitoredStream`]), and a connection that is made again when it is lost ([`Reconnecting`]). All of one attempt is under
//! one [`Deadline`]. And who else is alive at the other end, as far as one can see through a server ([`Observer`]).
//!
//! It never speaks a server's protocol, never shows a password, and never repeats what was sent.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod backoff;
mod deadline;
mod dial;
mod failure;
mod observer;
mod open;
mod options;
mod parts;
mod process;
mod race;
mod reconnecting;
mod secret;
mod secure;
mod servers;
mod stream;
mod verifier;

pub use backoff::Backoff;
pub use deadline::Deadline;
pub use dial::{dial, no_socket};
pub use failure::{Failure, chain};
pub use observer::{Neighbour, Observer};
pub use open::{open, unanswered};
pub use options::{CertReqs, TlsOptions, parameters, unknown_parameter};
pub use parts::Parts;
pub use process::own as own_process;
pub use reconnecting::{Connector, Reconnecting};
pub use secret::Secret;
pub use secure::{Words, alerted, secure};
pub use servers::ServerList;
pub use stream::{Monitor, MonitoredStream, Transport};
