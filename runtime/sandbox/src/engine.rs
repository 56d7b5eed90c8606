//! One function builds the engine's settings, for the worker, for tests and for whoever compiles ahead of time: an
//! artefact runs only on an engine of the same settings.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::config::{Pooling, SandboxConfig};
use crate::error::{Error, boxed};

/// Instances beyond `max_in_flight`: `describe` and cleanup calls come out of no task's turn.
pub(crate) const SIDE_CALLS_MAX: usize = 8;
/// Core instances of one component. CPython has 38; each is a counter in the pool, not memory.
pub(crate) const CORE_INSTANCES_MAX: u32 = 64;
/// Linear memories of one component. QuickJS has 3.
pub(crate) const MEMORIES_MAX: u32 = 16;
/// Tables of one component. CPython has 2, adapters add one each.
pub(crate) const TABLES_MAX: u32 = 64;
/// Elements of one table, each a pointer. CPython has 5,672, StarlingMonkey 7,689.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 50_000;
/// Memories and tables reserved per invocation, on average. An invocation that finds none free is run again.
const MEMORIES_PER_INVOCATION: u32 = 2;
const TABLES_PER_INVOCATION: u32 = 4;
/// The host's own bookkeeping of one instance; engines of other languages need more than the default of 1 MiB.
const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// Pages of a freed slot that are cleared in place rather than returned to the system: above the dirty set of a small
/// guest this removes the page-table edits that keep two threads from being faster than one.
const MEMORY_KEEP_RESIDENT: usize = 2 << 20;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// Freed slots whose pages are returned in one system call.
const DECOMMIT_BATCH: usize = 8;
/// What host functions get of a guest's stack beyond the guest's own part.
const HOST_STACK_BYTES: usize = 512 << 10;
/// Frames of a backtrace; deeper ones are recursion.
pub(crate) const BACKTRACE_FRAMES: usize = 32;

/// How instances get their memory, as it turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// Out of a pool reserved at the start.
    Pooling,
    /// One by one.
    OnDemand,
}

/// Builds the engine. Where the pool's address space is refused, allocates on demand and warns once.
pub(crate) fn build(config: &SandboxConfig) -> Result<(Engine, Allocator), Error> {
    if config.pooling == Pooling::Never {
        return Ok((on_demand(config)?, Allocator::OnDemand));
    }
    let mut settings = settings(config);
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    match Engine::new(&settings) {
        Ok(engine) => Ok((engine, Allocator::Pooling)),
        Err(error) if config.pooling == Pooling::Always => Err(Error::Engine(boxed(error))),
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                max_in_flight = config.max_in_flight,
                "instances are allocated one by one, which is several times slower: this system refuses the address \
                 space of the pool (see `ulimit -v`, or lower max_in_flight)"
            );
            Ok((on_demand(config)?, Allocator::OnDemand))
        }
    }
}

fn on_demand(config: &SandboxConfig) -> Result<Engine, Error> {
    Engine::new(&settings(config)).map_err(|error| Error::Engine(boxed(error)))
}

fn settings(config: &SandboxConfig) -> Config {
    let details =
        if config.backtrace_lines { WasmBacktraceDetails::Enable } else { WasmBacktraceDetails::Disable };
    let mut settings = Config::new();
    settings
        .epoch_interruption(true)
        .max_wasm_stack(config.stack_bytes_max)
        .async_stack_size(config.stack_bytes_max + HOST_STACK_BYTES)
        // Clearing stacks halves the throughput of two threads. A guest cannot read its own host stack.
        .async_stack_zeroing(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        .wasm_backtrace_details(details)
        .native_unwind_info(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        // Of the component model's async part nothing is compiled in; this says so to the engine.
        .concurrency_support(false)
        .memory_init_cow(true)
        .cranelift_opt_level(OptLevel::Speed);
    settings
}

fn pool(config: &SandboxConfig) -> PoolingAllocationConfig {
    let total = u32::try_from(config.max_in_flight + SIDE_CALLS_MAX).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(total)
        .total_stacks(total)
        .total_core_instances(total.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(total.saturating_mul(MEMORIES_PER_INVOCATION))
        .total_tables(total.saturating_mul(TABLES_PER_INVOCATION))
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(config.memory_bytes_max)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .decommit_batch_size(DECOMMIT_BATCH)
        .max_unused_warm_slots(total)
        // In this version it can leave swapped-out pages of one guest for the next one to read.
        .pagemap_scan(Enabled::No);
    pool
}

/// Leaves one core to running tasks while a large component compiles. The pool is the process's: the first one wins.
pub(crate) fn limit_compile_threads(concurrency: usize) {
    let threads = concurrency.saturating_sub(1).max(1);
    let _ = rayon_core::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("rwork-compile-{index}"))
        .build_global();
}
