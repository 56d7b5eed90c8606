//! Broker and result backend on Redis, with kombu's and Celery's keys.
//!
//! Owns the connections (TCP, TLS, Unix sockets, Sentinel, fail-over lists), the scripts that make each step atomic, and
//! the keys: Celery's own byte for byte, rwork's beginning with `rwork.`.
//!
//! The way of a call: `broker`, `consumer`, `backend` (the traits) → `link` (a connection that is made again when it is
//! lost) → one script or pipeline at the server. `url` and `options` say where that is.
//!
//! It never looks into a task's arguments, never runs anything, and never retries a call by itself: the worker does.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod backend;
mod bindings;
mod broker;
mod commit;
mod consumer;
mod dead_letters;
mod delayed;
mod deliveries;
mod error;
mod examine;
mod handle;
mod keys;
mod line;
mod link;
mod options;
mod publish;
mod queues;
mod reaper;
mod receiver;
mod renewal;
mod reply;
mod results;
mod resume;
mod scan;
mod sources;
mod url;

#[doc(hidden)]
pub use examine::{Examination, Facts, KeyInUse};
pub use handle::Redis;
pub use options::{Options, QueueOrder, Role, SentinelOptions, Transport};
pub use rwork_protocol::service::Error;
