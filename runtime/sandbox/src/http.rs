//! `wasi:http` for guests: wasmtime's resources in front, [`crate::egress`] behind.

use std::sync::Arc;

use http::{HeaderName, Request};
use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use crate::egress::{self, AllowList, Egress, Scope, SendFuture};

/// Headers of one message in memory, with what the map itself takes: the wire's 64 KiB, twice.
const FIELDS_BYTES_MAX: usize = 128 << 10;

/// The HTTP state of one invocation, made at its first request.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    egress: Egress,
    scope: Scope,
}

impl Http {
    pub(crate) fn new(
        egress: &Egress,
        plugin: Arc<str>,
        allow: Arc<AllowList>,
        until: Option<Instant>,
    ) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS_BYTES_MAX);
        let scope = egress.scope(plugin, allow, until);
        Self { ctx, hooks: Hooks { egress: egress.clone(), scope } }
    }

    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.ctx }
    }
}

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        egress::is_forbidden_header(name)
    }

    fn forbidden_header_filter(&mut self) -> wasmtime_wasi_http::ForbiddenHeaderFilter {
        Arc::new(egress::is_forbidden_header)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> SendFuture {
        self.egress.send(request, options, &self.scope)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        self.egress.limits().request_chunk_bytes_max
    }
}
