//! For producers: send tasks and await their results, over any broker and any result backend.
//!
//! The steps: [`rwork_protocol::NewTask`] → message → broker; and by the task's id, record ← backend. It never reads configuration,
//! never chooses a broker, and starts nothing in the background.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod client;
mod error;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::Error;
