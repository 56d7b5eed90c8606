//! The driver beside a real server, which the harness of the integration tests starts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[path = "../../../../../tests/src"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "it has more than these tests need")]
mod harness {
    pub(crate) mod child;
    pub(crate) mod lines;
    pub(crate) mod rabbitmq;
    pub(crate) mod tls;
}

mod commits;
mod connecting;
mod deadline;
mod deliveries;
mod encrypted;
mod entities;
mod examining;
mod held_back;
mod limits;
mod losses;
mod outages;
mod place;
mod rpc;

use harness::{child, lines, rabbitmq, tls};
