//! The one integration binary: a module for each behaviour, run against the real binary, real guests and real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod cli;
mod conformance;
mod layering;
mod tidy;
