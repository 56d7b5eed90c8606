//! The sandbox as its callers see it: admit, load, execute.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::artefact::{self, Code};
use crate::bare;
use crate::config::SandboxConfig;
use crate::egress::{Egress, HttpLimits, Roots};
use crate::engine::{self, Allocator, SIDE_CALLS_MAX};
use crate::error::{Error, boxed};
use crate::grants::Grants;
use crate::imports;
use crate::invocation::{Invocation, Limits, RequestInfo};
use crate::invoke::{self, SideCall};
use crate::mailbox::{Mailbox, Reply};
use crate::outcome::{Outcome, Report, Usage};
use crate::prepared::{self, CleanupReason, Description, Prepared};
use crate::services::Services;
use crate::slots::{Slot, Slots};
use crate::state::{Call, State};
use crate::{NoHost, epoch};

/// A description is names and options of some tasks, not data.
const DESCRIPTION_BYTES_MAX: usize = 4 << 20;
/// What `describe` and cleanup hooks may log.
const SIDE_LOG_BYTES_MAX: usize = 16 << 10;

/// Runs task invocations, each in a fresh instance. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    config: SandboxConfig,
    engine: Engine,
    allocator: Allocator,
    linker: Linker<State>,
    slots: Arc<Slots>,
    side_calls: Semaphore,
    services: Arc<Services>,
    guests: Handle,
    /// Taken on drop: a runtime must not be waited for inside another one.
    runtime: Option<Runtime>,
}

/// What the sandbox holds at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Invocations that hold a slot, waiting ones included.
    pub in_flight: usize,
    /// CPU slots in use.
    pub running: usize,
    /// How instances get their memory.
    pub allocator: Allocator,
    /// Live linear memories; 0 without a pool, like the next four.
    pub memories: usize,
    /// Live tables.
    pub tables: usize,
    /// Live guest stacks.
    pub stacks: usize,
    /// Live core instances.
    pub core_instances: u64,
    /// Live component instances.
    pub component_instances: u64,
    /// Sockets that guests' HTTP requests have open, idle ones included.
    pub http_connections: usize,
}

impl Sandbox {
    /// Starts the engine, the epoch thread and the guest threads. Guests' sockets and timers live on `io`.
    ///
    /// # Errors
    /// A setting out of range; an engine or a thread that can't be started.
    pub fn new(config: SandboxConfig, io: Handle) -> Result<Self, Error> {
        let egress = Egress::new(io.clone(), HttpLimits::default(), Roots::default());
        Self::with_egress(config, io, egress)
    }

    /// The same with an HTTP client of the caller's.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn with_egress(config: SandboxConfig, io: Handle, egress: Egress) -> Result<Self, Error> {
        config.check()?;
        engine::limit_compile_threads(config.concurrency);
        let (engine, allocator) = engine::build(&config)?;
        let linker = imports::linker(&engine).map_err(|error| Error::Engine(boxed(error)))?;
        let slots = Slots::new(config.concurrency, config.max_in_flight);
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.concurrency)
            .thread_name("rwork-guest")
            .build()
            .map_err(|source| Error::Thread { what: "guest threads", source })?;
        epoch::start(engine.weak(), Arc::clone(&slots), config.epoch_tick)?;
        Ok(Self(Arc::new(Inner {
            config,
            engine,
            allocator,
            linker,
            slots,
            side_calls: Semaphore::new(SIDE_CALLS_MAX),
            services: Arc::new(Services { io, egress, mailbox: Mailbox::default() }),
            guests: runtime.handle().clone(),
            runtime: Some(runtime),
        })))
    }

    /// Waits for the right to run one invocation, in turn.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn admit(&self) -> Slot {
        self.0.slots.admit().await
    }

    /// The same without waiting.
    pub fn try_admit(&self) -> Option<Slot> {
        self.0.slots.try_admit()
    }

    /// Compiles a component to an artefact for [`Sandbox::load_artefact`]. Blocks for up to seconds, on all cores but
    /// one.
    ///
    /// # Errors
    /// Not a component, or not a valid one.
    pub fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, Error> {
        artefact::compile(&self.0.engine, wasm, self.0.config.component_bytes_max)
    }

    /// Part of the name of an artefact: one made under another hash must not be loaded.
    pub fn compatibility_hash(&self) -> u64 {
        artefact::compatibility_hash(&self.0.engine)
    }

    /// Maps an artefact of [`Sandbox::compile`].
    ///
    /// An artefact is native code: it must lie in a directory that only this user can write (mode 0700), come from
    /// `compile`, and never be modified in place, only replaced by a rename. What else claims to be one would run with
    /// the worker's own rights.
    ///
    /// # Errors
    /// Not an artefact of this version of the engine.
    pub fn load_artefact(&self, path: &Path) -> Result<Code, Error> {
        artefact::load(&self.0.engine, path)
    }

    /// Compiles without leaving an artefact, for where no directory can be trusted.
    ///
    /// # Errors
    /// As [`Sandbox::compile`].
    pub fn compile_in_memory(&self, wasm: &[u8]) -> Result<Code, Error> {
        artefact::compile_in_memory(&self.0.engine, wasm, self.0.config.component_bytes_max)
    }

    /// Checks a plugin's world, imports and size, and resolves them. Executes nothing.
    ///
    /// # Errors
    /// Another world; imports that are not granted (all of them) or not offered; too large; types that differ.
    pub fn link(&self, code: &Code, plugin: &str, grants: Arc<Grants>) -> Result<Prepared, Error> {
        prepared::prepare(&self.0.linker, code, plugin, grants, self.0.config.memory_bytes_max)
    }

    /// Asks a plugin for its tasks, in a fresh instance with nothing granted and within
    /// [`SandboxConfig::describe_time`].
    ///
    /// # Errors
    /// The call trapped, took too long or too much.
    ///
    /// # Cancel safety
    /// Cancel safe: the call is ended.
    pub async fn describe(&self, prepared: &Arc<Prepared>) -> Result<Description, Error> {
        let limits = Limits {
            hard_time: Some(self.0.config.describe_time),
            result_bytes_max: DESCRIPTION_BYTES_MAX,
            ..self.side_limits()
        };
        let call =
            Call { info: Arc::new(RequestInfo::default()), headers: Bytes::new(), host: Arc::new(NoHost) };
        let side = SideCall { call, limits, grants: None };
        let (services, slot) = (Arc::clone(&self.0.services), self.0.slots.side());
        let answer = self.on_guest_thread(invoke::describe(services, slot, Arc::clone(prepared), side)).await;
        answer.map_err(|reason| Error::Describe { plugin: prepared.plugin().to_owned(), reason })
    }

    /// Calls a plugin's cleanup hook in a new instance, with the invocation's grants and host and within
    /// [`SandboxConfig::cleanup_time`]. Does nothing for a plugin without one.
    ///
    /// # Errors
    /// The call trapped, took too long or too much.
    ///
    /// # Cancel safety
    /// Cancel safe: the call is ended.
    pub async fn cleanup(
        &self,
        prepared: Arc<Prepared>,
        invocation: Invocation,
        reason: CleanupReason,
    ) -> Result<(), Error> {
        if !prepared.has_cleanup() {
            return Ok(());
        }
        let plugin = prepared.plugin().to_owned();
        let Invocation { task, id, input, info, headers, limits, host, .. } = invocation;
        let limits = Limits {
            hard_time: Some(self.0.config.cleanup_time),
            memory_bytes_max: limits.memory_bytes_max,
            ..self.side_limits()
        };
        let grants = Some(Arc::clone(prepared.grants()));
        let side = SideCall { call: Call { info, headers, host }, limits, grants };
        let (services, slot) = (Arc::clone(&self.0.services), self.0.slots.side());
        let call = invoke::clean_up(services, slot, prepared, side, (task, id, input), reason);
        self.on_guest_thread(call).await.map_err(|reason| Error::Cleanup { plugin, reason })
    }

    /// Runs one invocation on the guest threads, beginning now. Dropping the future ends it. The report comes when the guest
    /// has ended; its memory is cleared after that, and then the slot is free.
    pub fn execute(&self, slot: Slot, prepared: Arc<Prepared>, invocation: Invocation) -> Execution {
        let (reply, report) = Reply::new(Arc::clone(&self.0.services));
        // Boxed where it runs: what this thread allocates for a guest thread stays small.
        let run = async move { Box::pin(invoke::run(reply, slot, prepared, invocation)).await };
        let running = self.0.guests.spawn(run);
        Execution { report, _running: AbortOnDropHandle::new(running) }
    }

    /// Runs a task in a bare loop on this thread for so long, and returns how often: the yardstick of `rwork bench`.
    /// Blocks.
    ///
    /// # Errors
    /// The task does not return.
    pub fn bare_loop(
        &self,
        prepared: &Arc<Prepared>,
        invocation: &Invocation,
        duration: Duration,
    ) -> Result<u64, Error> {
        bare::run(&self.0.services, prepared, invocation, duration)
    }

    /// What is in use now.
    pub fn metrics(&self) -> Metrics {
        let (in_flight, running) = self.0.slots.used();
        let pool = self.0.engine.pooling_allocator_metrics();
        let pool = pool.as_ref();
        Metrics {
            in_flight,
            running,
            allocator: self.0.allocator,
            memories: pool.map_or(0, |pool| pool.memories()),
            tables: pool.map_or(0, |pool| pool.tables()),
            stacks: pool.map_or(0, |pool| pool.stacks()),
            core_instances: pool.map_or(0, |pool| pool.core_instances()),
            component_instances: pool.map_or(0, |pool| pool.component_instances()),
            http_connections: self.0.services.egress.open_connections(),
        }
    }

    /// The settings it was made with.
    pub fn config(&self) -> &SandboxConfig {
        &self.0.config
    }

    fn side_limits(&self) -> Limits {
        Limits {
            memory_bytes_max: self.0.config.memory_bytes_max,
            log_bytes_max: SIDE_LOG_BYTES_MAX,
            kill_grace: Duration::ZERO,
            ..Limits::default()
        }
    }

    async fn on_guest_thread<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<T, String> {
        // The semaphore is never closed.
        let _permit = self.0.side_calls.acquire().await;
        let running = AbortOnDropHandle::new(self.0.guests.spawn(call));
        running.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.slots.close();
    }
}

/// A running invocation; dropping it ends the guest.
#[derive(Debug)]
#[must_use = "dropping it ends the invocation"]
pub struct Execution {
    report: oneshot::Receiver<Report>,
    _running: AbortOnDropHandle<()>,
}

impl Future for Execution {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        Pin::new(&mut self.report).poll(cx).map(|report| {
            report.unwrap_or_else(|_| Report {
                outcome: Outcome::HostFault("the guest's thread failed".to_owned()),
                usage: Usage::default(),
            })
        })
    }
}
