//! One delivery from receive to settle.
//!
//! [`Worker`] takes messages from a broker, runs their tasks and commits what they cause: the result, what follows, and the
//! ack are one step that can be repeated, whatever dies. `pipe` shows the whole way.
//!
//! Its broker, backend, clock, randomness and executor are arguments; it never opens a socket or a file, never reads the
//! machine's clock, and runs on a single thread with paused time just as well, which is how the simulation checks it.

mod admit;
mod budget;
mod clock;
mod commit;
mod committer;
mod config;
mod ending;
mod error;
mod execute;
mod executor;
mod failure;
mod group;
mod host;
mod intake;
mod keeper;
mod live;
mod look;
mod next;
mod outage;
mod parts;
mod pipe;
mod prefetch;
mod receive;
mod request;
mod retry;
mod sandboxed;
mod session;
mod shared;
mod shutdown;
mod signatures;
#[cfg(test)]
mod sim;
mod stranger;
mod summary;
mod telling;
#[cfg(test)]
mod tests;
mod watched;
mod worker;

pub use budget::BYTES_MAX;
pub use clock::{Clock, SystemClock};
pub use config::{
    BackoffConfig, DELIVERIES_MAX, FLUSH_DEADLINE, KILL_GRACE, PREFETCH_MAX, PREFETCH_MULTIPLIER,
    SETTLE_BATCH_MAX, STOP_GRACE, WAIT_IN_MEMORY_MAX, WAITING_MAX, WorkerConfig,
};
pub use error::Error;
pub use executor::{Executor, TaskVersion};
pub use sandboxed::SandboxExecutor;
pub use shutdown::Shutdown;
pub use summary::Summary;
pub use worker::{Worker, WorkerParts};
