//! What one store holds: the guest's side of everything. It lives as long as the instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::Store;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::control::Control;
use crate::grants::{Access, Grants};
use crate::host::Host;
use crate::http::Http;
use crate::invocation::{Limits, RequestInfo};
use crate::memory::MemoryCap;
use crate::output::Output;
use crate::services::Services;

/// Open handles of one invocation: files, streams, pollables, HTTP bodies.
const RESOURCES_MAX: usize = 1_024;
/// Handles that components of one plugin pass among each other.
const COMPONENT_HANDLES_MAX: usize = 10_000;
/// What one call may copy out of the guest beside a result of the largest size: log lines, states, signatures.
const HOSTCALL_BYTES_SLACK: usize = 1 << 20;
/// Random bytes of one call; a key takes 32.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// What a guest can ask about and reach; of the worker's message it knows nothing else.
pub(crate) struct Call {
    pub(crate) info: Arc<RequestInfo>,
    pub(crate) headers: Bytes,
    pub(crate) host: Arc<dyn Host>,
}

/// The data of one store.
pub(crate) struct State {
    pub(crate) call: Call,
    pub(crate) control: Arc<Control>,
    pub(crate) memory: MemoryCap,
    pub(crate) table: ResourceTable,
    pub(crate) services: Arc<Services>,
    /// None: nothing is granted.
    pub(crate) grants: Option<Arc<Grants>>,
    pub(crate) plugin: Arc<str>,
    /// From the guest's panic hook.
    pub(crate) last_words: Option<String>,
    /// Parsed headers, once asked for.
    pub(crate) header_index: Option<BTreeMap<String, String>>,
    log_bytes_max: usize,
    output: Option<Arc<Output>>,
    wasi: Option<WasiCtx>,
    http: Option<Box<Http>>,
}

impl State {
    /// The guest's output, once there is any.
    pub(crate) fn output(&mut self) -> &Arc<Output> {
        self.output.get_or_insert_with(|| {
            let (host, control) = (Arc::clone(&self.call.host), Arc::clone(&self.control));
            Arc::new(Output::new(host, control, self.log_bytes_max))
        })
    }

    /// The end of the guest's stderr.
    pub(crate) fn stderr_tail(&self) -> String {
        self.output.as_ref().map_or_else(String::new, |output| output.stderr_tail())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let grants = self.grants.as_deref();
        // Directories were opened when the store was made: what is left here does not fail.
        let ctx = self.wasi.get_or_insert_with(|| sandboxed(grants).build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let http = self.http.get_or_insert_with(|| {
            let allow = self.grants.as_ref().map(|grants| Arc::clone(&grants.http)).unwrap_or_default();
            let deadline = self.control.hard.map(tokio::time::Instant::from_std);
            Box::new(Http::new(&self.services.egress, Arc::clone(&self.plugin), allow, deadline))
        });
        http.view(&mut self.table)
    }
}

/// What a new store is made of.
pub(crate) struct Parts {
    pub(crate) call: Call,
    pub(crate) control: Arc<Control>,
    pub(crate) services: Arc<Services>,
    pub(crate) grants: Option<Arc<Grants>>,
    pub(crate) plugin: Arc<str>,
}

/// A fresh store under its limits. Opens the granted directories; fails when one of them can't be.
pub(crate) fn store(
    engine: &wasmtime::Engine,
    parts: Parts,
    limits: &Limits,
) -> wasmtime::Result<Store<State>> {
    let wasi = match parts.grants.as_deref() {
        Some(grants) if !grants.dirs.is_empty() => Some(with_dirs(grants)?),
        _ => None,
    };
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    let state = State {
        call: parts.call,
        memory: MemoryCap::new(limits.memory_bytes_max, Arc::clone(&parts.control)),
        control: parts.control,
        table,
        services: parts.services,
        grants: parts.grants,
        plugin: parts.plugin,
        last_words: None,
        header_index: None,
        log_bytes_max: limits.log_bytes_max,
        output: None,
        wasi,
        http: None,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(hostcall_bytes_max(limits));
    store.set_max_component_handles(COMPONENT_HANDLES_MAX);
    Ok(store)
}

/// What one call may copy out of the guest: a result twice the largest size is still measured exactly.
pub(crate) fn hostcall_bytes_max(limits: &Limits) -> usize {
    limits.result_bytes_max.saturating_mul(2).saturating_add(HOSTCALL_BYTES_SLACK)
}

/// Clocks and randomness, and the granted environment; no network of any kind.
fn sandboxed(grants: Option<&Grants>) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(RANDOM_BYTES_MAX);
    if let Some(grants) = grants {
        builder.envs(&grants.env);
    }
    builder
}

fn with_dirs(grants: &Grants) -> wasmtime::Result<WasiCtx> {
    let mut builder = sandboxed(Some(grants));
    for dir in &grants.dirs {
        let perms = match dir.access {
            Access::Read => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        builder.preopened_dir(&dir.host, &dir.guest, perms).map_err(|error| {
            wasmtime::Error::new(DirUnavailable(format!("`{}`: {error:#}", dir.host.display())))
        })?;
    }
    Ok(builder.build())
}

/// A granted directory can't be opened: the operator's fault, not the guest's.
#[derive(Debug, thiserror::Error)]
#[error("failed to open the granted directory {0}")]
pub(crate) struct DirUnavailable(String);
