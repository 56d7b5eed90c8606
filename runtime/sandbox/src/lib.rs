//! Runs one task invocation in a fresh WebAssembly instance, within limits.
//!
//! [`Invocation`] in, [`Report`] out. This crate owns the engine, the linker, the instances, the limits and the host
//! imports of `wit/`. It has never heard of messages, brokers or result records.

mod artefact;
mod backtrace;
mod bare;
mod bindings;
mod config;
mod control;
mod convert;
pub mod egress;
mod engine;
mod epoch;
mod error;
mod grants;
mod host;
mod http;
mod imports;
mod invocation;
mod invoke;
mod mailbox;
mod memory;
mod outcome;
mod output;
mod prepared;
mod sandbox;
mod services;
mod slots;
mod state;
mod stop;
mod supervise;
#[cfg(test)]
mod test_host;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

pub use artefact::{Code, NotAComponent};
pub use config::{Pooling, SandboxConfig};
pub use engine::Allocator;
pub use error::{BoxError, Error};
pub use grants::{Access, DirGrant, Grants, TaskPattern};
pub use host::{Host, HostError, Level, LogSource, NoHost, Submitted};
pub use invocation::{Input, Invocation, JSON, Limits, Payload, RequestInfo};
pub use outcome::{Failure, KillReason, Outcome, Report, Retry, RetryLimit, Trap, Usage};
pub use prepared::{CleanupReason, Description, Prepared, TaskDeclaration};
pub use sandbox::{Execution, Metrics, Sandbox};
pub use slots::Slot;
pub use stop::{Stop, StopReason};
