//! The one integration binary: a module for each behaviour, run against the real binary, real guests and real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod celery;
mod chaos;
mod cli;
mod conformance;
mod delayed;
mod delivery;
mod disk_full;
mod docs;
mod histories;
mod hostile;
mod hot_reload;
mod layering;
mod leak;
mod tidy;
mod wit;
