//! From a message server's URL to a socket that may be encrypted: what the drivers have in common.
//!
//! Owns the parts of a URL, the TLS parameters by redis-py's names, dialling, the handshake, and why any of it failed. It
//! never speaks a server's protocol and never shows a password.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod dial;
mod failure;
mod options;
mod parts;
mod secret;
mod secure;
mod verifier;

pub use dial::{dial, no_socket};
pub use failure::Failure;
pub use options::{CertReqs, TlsOptions, parameters, unknown_parameter};
pub use parts::Parts;
pub use secret::Secret;
pub use secure::{Words, alerted, secure};
