//! Celery's wire protocol: messages, headers, signatures, states. Types and codecs, no IO.
//!
//! The source for every byte is Celery 5.7 (`celery/app/amqp.py`, `celery/backends/base.py`, `kombu/utils/json.py`); each
//! item names the setting or field it follows.

mod content;
mod decode;
mod draft;
mod error;
mod headers;
mod id;
pub mod json;
mod message;
mod new_task;
mod record;
pub mod repr;
pub mod service;
mod signature;
mod task_message;
mod time;

pub use content::{ContentType, JSON, UTF_8};
pub use decode::{BODY_BYTES_MAX, DecodeLimits, HEADERS_BYTES_MAX, decode};
pub use error::{DecodeError, Fault};
pub use headers::Headers;
pub use id::{InvalidName, NAME_BYTES_MAX, QueueName, TaskId, TaskName};
pub use message::{Message, Properties};
pub use new_task::{InvalidArguments, NewTask, expiration};
pub use record::{Exception, Record, RecordError, RevokeReason, State};
pub use signature::{Signature, SignatureError};
pub use task_message::{Embed, TaskMessage};
pub use time::Timestamp;
