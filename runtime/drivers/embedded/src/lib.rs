//! Broker and result backend in one durable SQLite file, shared by the processes of one machine.
//!
//! Owns the file, its schema and the files beside it. One thread per process writes: it gathers what was asked for since
//! its last turn into one transaction (group commit), then hands messages to the consumers that wait. One thread reads.
//! A doorbell beside the file wakes the other processes, so that nobody polls. A locked file for each consumer shows that
//! its process lives.
//!
//! The way of a call: `broker`, `consumer`, `backend` (the traits) → `inbox` → `engine` (the turn) → `acts` (the
//! statements); reads go to `reader`, and waiting for a result to `watch`.
//!
//! It never looks into a message, never runs anything, and never blocks a thread of the async runtime.

mod acts;
mod backend;
mod bell;
mod broker;
mod consumer;
mod consumer_state;
mod engine;
mod error;
mod files;
mod handle;
mod inbox;
mod lock;
mod network;
mod opening;
mod options;
mod presence;
mod reader;
mod reaper;
mod row;
mod schema;
mod space;
mod watch;

pub use handle::Embedded;
pub use options::{Clock, Options, Synchronous};
pub use rwork_protocol::service::Error;
