//! For producers: send tasks and await their results, over any broker and any result backend.
//!
//! The steps: [`rwork_protocol::NewTask`] → message → broker; and by the task's id, record ← backend. It never reads configuration,
//! never chooses a broker, and starts nothing in the background.

mod client;
mod error;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::Error;
