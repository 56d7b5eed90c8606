//! Broker and rpc results on RabbitMQ, with Celery's queues and exchanges.
//!
//! Owns the connections (TCP, TLS, fail-over lists), the declarations, Celery's delayed delivery, the dead letters, and the
//! way between messages and AMQP's properties and header tables.
//!
//! The way of a call: `handle` (one URL) → `link` (a connection that is made again when it is lost) → a channel. One
//! connection publishes, which the server may block for as long as it lacks memory or disk; another one consumes and acks,
//! which it never blocks. `url` and `options` say where that is.
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
mod broker;
mod commit;
mod consumer;
mod content;
mod dead;
mod declare;
mod delayed;
mod error;
mod examine;
mod handle;
mod link;
mod look;
mod marks;
mod options;
mod publish;
mod queues;
mod url;

pub use examine::{Examination, QueueInUse};
pub use handle::Amqp;
pub use options::{Options, QueueType, Role};
pub use rwork_protocol::service::Error;
