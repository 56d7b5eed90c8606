//! The driver against real Redis servers, each started by the test that needs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod committing;
mod common;
mod connecting;
mod counting;
mod deadline;
mod examining;
mod full_memory;
mod giving_back;
mod late_subscribers;
mod outages;
mod peers;
mod proxy;
mod results;
mod resuming;
mod rights;
mod sending;
mod taking;
mod tls;
mod waiting;
