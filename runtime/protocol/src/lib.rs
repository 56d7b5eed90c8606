//! Celery's wire protocol: messages, headers, signatures, states. Types and codecs, no IO.
//!
//! The source for every byte is Celery 5.7 (`celery/app/amqp.py`, `celery/backends/base.py`, `kombu/utils/json.py`); each
//! item names the setting or field it follows.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod id;
mod message;
mod record;
pub mod service;
mod time;

pub use id::{InvalidName, QueueName, TaskId, TaskName};
pub use message::{Message, Properties};
pub use record::{Exception, Record, State};
pub use time::Timestamp;
