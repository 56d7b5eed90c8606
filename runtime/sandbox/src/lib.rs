//! Runs one task invocation in a fresh WebAssembly instance, within limits.
//!
//! [`Invocation`] in, [`Report`] out. This crate owns the engine, the linker, the instances, the limits and the host
//! imports of `wit/`. It has never heard of messages, brokers or result records.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a panic is how a test fails"
    )
)]

mod bindings;
mod host;
mod invocation;
mod outcome;
mod stop;

pub use host::{Host, HostError, Level, LogSource, Submitted};
pub use invocation::{Input, Invocation, JSON, Limits, Payload, RequestInfo};
pub use outcome::{Failure, KillReason, Outcome, Report, Retry, RetryLimit, Trap, Usage};
pub use stop::{Stop, StopReason};
