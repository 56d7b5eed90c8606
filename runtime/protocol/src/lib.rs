//! Celery's wire protocol: messages, headers, signatures, states. Types and codecs, no IO.
//!
//! The source for every byte is Celery 5.7 (`celery/app/amqp.py`, `celery/backends/base.py`, `kombu/utils/json.py`); each
//! item names the setting or field it follows.

mod compression;
mod content;
mod decode;
mod draft;
pub mod envelope;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod id;
pub mod json;
mod message;
mod new_task;
mod output;
mod record;
pub mod repr;
pub mod service;
mod signature;
mod signed;
mod task_message;
mod time;
mod transcode;

pub use compression::{
    Compression, CompressionError, WINDOW_BYTES_MAX, compress, compress_stored, decompress,
    decompress_stored, is_compressed, may_be_compressed,
};
pub use content::{AcceptContent, ContentType, JSON, UTF_8, UnknownContent};
pub use decode::{BODY_BYTES_MAX, DECOMPRESSED_BYTES_MAX, DecodeLimits, HEADERS_BYTES_MAX, decode};
pub use error::{DecodeError, Fault};
pub use headers::{Headers, guest_headers};
pub use id::{InvalidName, NAME_BYTES_MAX, QueueName, TaskId, TaskName};
pub use message::{Message, Properties};
pub use new_task::{InvalidArguments, NewTask, expiration};
pub use output::Overflow;
pub use record::{Exception, Extended, Record, RecordError, RevokeReason, State, stored};
pub use signature::{Signature, SignatureError};
pub use signed::{CertificateError, Certificates, Digest, SignedError};
pub use task_message::{Embed, TaskMessage};
pub use time::Timestamp;
pub use transcode::TranscodeError;
