//! What the sandbox can be told, and every default with its reason. Nothing here starts anything.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::error::Error;

/// In-flight invocations per CPU slot: a waiting guest costs its memory and nothing else, and 64 HTTP calls at a time
/// per core keep that core busy when each answer takes 50 ms to come and under 1 ms to digest.
const IN_FLIGHT_PER_CPU: usize = 64;
/// Each in-flight invocation reserves two memories of 4 GiB and four memory mappings; beyond this, Linux's default of
/// 65,530 mappings per process is in reach.
const IN_FLIGHT_MAX: usize = 8_192;
/// More CPU slots than this is a typing error rather than a machine.
const CONCURRENCY_MAX: usize = 1_024;
/// What fits a thumbnail of a large photograph or an interpreter with its libraries.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// A 32-bit linear memory ends here.
const MEMORY_BYTES_LIMIT: usize = 4 << 30;
/// A hard limit is met within one tick; one hundred wake-ups a second cost nothing measurable while guests run.
const EPOCH_TICK: Duration = Duration::from_millis(10);
/// Deep enough for recursive parsers; a runaway recursion ends in about a millisecond.
const STACK_BYTES_MAX: usize = 512 << 10;
/// Python components reach 20 MB, those with machine-learning wheels 40 MB.
const COMPONENT_BYTES_MAX: usize = 64 << 20;
/// `describe` returns constants. Python's first call takes 100 ms on a loaded machine.
const DESCRIBE_TIME: Duration = Duration::from_millis(250);
/// A cleanup hook deletes a file or sends a request; it must never become a second task.
const CLEANUP_TIME: Duration = Duration::from_secs(5);

/// How instances get their memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Reserved up front; allocated one by one, with a warning, where the reservation is refused.
    #[default]
    Auto,
    /// Reserved up front, or the sandbox does not start.
    Always,
    /// Allocated one by one: slow, for hosts with little address space.
    Never,
}

/// The settings of one [`crate::Sandbox`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Guest threads, and how many guests may compute at a time. 1..=1024; default: the cores of this machine.
    pub concurrency: usize,
    /// How many invocations may exist at a time, waiting ones included. 1..=8192; default: `concurrency` × 64.
    pub max_in_flight: usize,
    /// The largest memory cap that an invocation may have, in bytes. Default 256 MiB, at most 4 GiB.
    pub memory_bytes_max: usize,
    /// How instances get their memory.
    pub pooling: Pooling,
    /// How often a computing guest is looked at. 1 ms..=1 s; default 10 ms.
    pub epoch_tick: Duration,
    /// Stack of a guest's WebAssembly frames, in bytes. 64 KiB..=16 MiB; default 512 KiB.
    pub stack_bytes_max: usize,
    /// The largest component that is compiled, in bytes. Default 64 MiB.
    pub component_bytes_max: usize,
    /// Hard limit of a `describe` call. Default 250 ms.
    pub describe_time: Duration,
    /// Hard limit of a cleanup hook. Default 5 s.
    pub cleanup_time: Duration,
    /// Whether backtraces carry file and line, where a component has DWARF. Costs time at the first trap of each
    /// component; default off.
    pub backtrace_lines: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self::with_concurrency(available_parallelism().map_or(1, NonZeroUsize::get))
    }
}

impl SandboxConfig {
    /// The defaults for so many CPU slots.
    pub fn with_concurrency(concurrency: usize) -> Self {
        Self {
            concurrency,
            max_in_flight: concurrency.saturating_mul(IN_FLIGHT_PER_CPU).clamp(1, IN_FLIGHT_MAX),
            memory_bytes_max: MEMORY_BYTES_MAX,
            pooling: Pooling::Auto,
            epoch_tick: EPOCH_TICK,
            stack_bytes_max: STACK_BYTES_MAX,
            component_bytes_max: COMPONENT_BYTES_MAX,
            describe_time: DESCRIBE_TIME,
            cleanup_time: CLEANUP_TIME,
            backtrace_lines: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        within("concurrency", self.concurrency, 1, CONCURRENCY_MAX)?;
        within("max_in_flight", self.max_in_flight, 1, IN_FLIGHT_MAX)?;
        within("memory_bytes_max", self.memory_bytes_max, 64 << 10, MEMORY_BYTES_LIMIT)?;
        within("stack_bytes_max", self.stack_bytes_max, 64 << 10, 16 << 20)?;
        let tick_ms = usize::try_from(self.epoch_tick.as_millis()).unwrap_or(usize::MAX);
        within("epoch_tick (ms)", tick_ms, 1, 1_000)
    }
}

fn within(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), Error> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Setting { name, value, min, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_own_bounds() {
        for concurrency in [1, 2, 64, CONCURRENCY_MAX] {
            SandboxConfig::with_concurrency(concurrency).check().unwrap();
        }
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let config = SandboxConfig { max_in_flight: 0, ..SandboxConfig::default() };
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "expected `max_in_flight` to be 1..=8192, got `0`");
    }
}
