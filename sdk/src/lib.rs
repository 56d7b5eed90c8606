//! Write rwork tasks in Rust.
//!
//! A task is a plain function. [`macro@task`] declares it, [`plugin!`] makes a plugin of several, and
//! `cargo build --target wasm32-wasip2` (or `rwork build`, which also checks the result) makes the component that a worker
//! loads. The same functions run natively under `cargo test`: see [`testing`].
//!
//! ```
//! use rwork::{Context, TaskError};
//!
//! /// Adds two numbers.
//! #[rwork::task(max_retries = 3, time_limit = "20s")]
//! fn add(ctx: &Context, x: i64, #[default(1)] y: i64) -> Result<i64, TaskError> {
//!     ctx.checkpoint()?;
//!     x.checked_add(y).ok_or_else(|| TaskError::new("OverflowError", "the sum needs more than 64 bits"))
//! }
//!
//! rwork::plugin!(add);
//! # fn main() {}
//! ```
//!
//! What it never does: ask the host for something that the task does not use. A guest imports only what is called, and an
//! import is what the operator must grant.

mod bytes;
mod call;
mod cleanup;
mod context;
mod error;
#[cfg(target_family = "wasm")]
mod guest;
#[cfg_attr(target_family = "wasm", path = "host/guest.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "host/native.rs")]
mod host;
mod json;
mod plugin;
mod retry;
mod signature;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use bytes::Bytes;
pub use call::{Input, JSON};
pub use cleanup::{EndReason, Ended};
pub use context::{
    Context, ProgressError, RemoteFailure, Request, SendError, StopReason, Stopped, Submitted, TimeLeft,
};
pub use error::{DEFAULT_MODULE, TaskError};
pub use log;
pub use plugin::Plugin;
pub use retry::{Retry, RetryLimit};
pub use rwork_macros::task;
pub use serde_json::{Value, json};
pub use signature::Signature;

/// Decodes JSON as Celery's clients write it: with `NaN` and the infinities, large integers and kombu's typed values.
///
/// # Errors
///
/// `ValueError` when the text is not JSON or not of the type.
pub fn from_json<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, TaskError> {
    json::from_str(text).map_err(TaskError::from)
}

/// Encodes JSON as Celery's clients read it: with `NaN` and the infinities, large integers, and bytes as kombu's typed
/// value.
///
/// # Errors
///
/// `ValueError` when the value has no JSON, for example a map with lists as keys.
pub fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, TaskError> {
    json::to_string(value).map_err(TaskError::from)
}

/// What the macros' code refers to; no promise is made about it.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::{Bound, Parameter, Parameters, bind};
    #[cfg(target_family = "wasm")]
    pub use crate::guest::{bindings, cleanup, cleanup_bindings, describe, run};
    pub use crate::plugin::{Definition, Task, encode};
}
