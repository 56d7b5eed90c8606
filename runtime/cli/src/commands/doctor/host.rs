//! What this machine must have for the sandbox: address space, memory mappings, open files, memory, a right clock.

use std::path::Path;
use std::time::SystemTime;

use rwork_sandbox::{Allocator, Sandbox, SandboxConfig};

use super::check::Check;
use crate::config::{Config, show_bytes};
use crate::context::Context;
use crate::{open_files, wiring};

/// Memory mappings of one slot of the pool that was in use once.
const MAPPINGS_PER_SLOT: usize = 4;

/// Mappings of the rest of the process.
const MAPPINGS_BESIDE: usize = 2_000;

/// Before rwork was written: a clock that says so has not been set.
const CLOCK_MIN: u64 = 1_767_225_600;

/// Starts a sandbox as a worker would, and looks around it.
pub(crate) fn checks(context: &Context, config: &Config) -> (Option<Sandbox>, Vec<Check>) {
    let wanted = wiring::sandbox_config(config);
    let mut checks = vec![clock(), mappings(&wanted), files(&wanted), memory(&wanted)];
    match wiring::sandbox(context, config) {
        Ok(sandbox) => {
            checks.push(allocator(&sandbox));
            (Some(sandbox), checks)
        }
        Err(error) => {
            checks.push(Check::failure("sandbox", &error));
            (None, checks)
        }
    }
}

fn allocator(sandbox: &Sandbox) -> Check {
    let config = sandbox.config();
    let slots = format!("{} CPU slots, {} in flight", config.concurrency, config.max_in_flight);
    match sandbox.metrics().allocator {
        Allocator::Pooling => Check::ok("sandbox", format!("{slots}, instances come out of a pool")),
        Allocator::OnDemand => Check::warning(
            "sandbox",
            format!("{slots}, instances are allocated one by one, several times slower"),
            "raise `ulimit -v`, or lower `worker_max_in_flight`",
        ),
    }
}

fn clock() -> Check {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds < CLOCK_MIN {
        let hint = "set it: leases, delayed tasks and expiry go by it";
        return Check::failed("clock", "the clock is not set", hint);
    }
    Check::ok("clock", rwork_protocol::Timestamp::from_system(SystemTime::now()).to_iso())
}

fn mappings(wanted: &SandboxConfig) -> Check {
    let needed = wanted.max_in_flight * MAPPINGS_PER_SLOT + MAPPINGS_BESIDE;
    let text = std::fs::read_to_string(Path::new("/proc/sys/vm/max_map_count")).unwrap_or_default();
    match text.trim().parse::<usize>() {
        Ok(limit) if limit < needed => Check::warning(
            "mappings",
            format!("{limit} memory mappings per process, {needed} may be needed"),
            format!("`sysctl vm.max_map_count={}`, or lower `worker_max_in_flight`", needed * 2),
        ),
        Ok(limit) => Check::ok("mappings", format!("{limit} per process, at most {needed} needed")),
        Err(_) => Check::ok("mappings", "no limit known on this system"),
    }
}

fn files(wanted: &SandboxConfig) -> Check {
    let needed = open_files::needed(wanted);
    match open_files::allowed() {
        Some(limit) if limit < needed => Check::warning(
            "open files",
            format!("{limit} per process, {needed} may be needed"),
            format!("`ulimit -Hn {}`", needed * 2),
        ),
        Some(limit) => Check::ok("open files", format!("{limit} per process, at most {needed} needed")),
        None => Check::ok("open files", "no limit"),
    }
}

/// Not a failure: most tasks use a small part of their cap.
fn memory(wanted: &SandboxConfig) -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let Some(total) = kib.map(|kib| kib * 1024) else {
        return Check::ok("memory", "its size is not known on this system");
    };
    let cap = wanted.memory_bytes_max as u64;
    let computing = cap * wanted.concurrency as u64;
    let found = format!("{} here; a task may take {}", show_bytes(total), show_bytes(cap));
    if computing > total {
        let hint = "lower `worker_concurrency` or `max_memory` in `[limits]`";
        return Check::warning(
            "memory",
            format!("{found}, those on a CPU together more than there is"),
            hint,
        );
    }
    Check::ok("memory", found)
}
