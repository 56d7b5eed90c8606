//! The client that all plugins of a worker share, and what one invocation may do with it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use wasmtime_wasi_http::{RequestOptions, WasiBody};

use super::allow::AllowList;
use super::error::EgressError;
use super::limits::HttpLimits;
use super::pool::Pool;
use super::resolve::{Lookup, Resolve, SystemResolver};
use super::tls::{Roots, Tls};

/// Refused requests that one invocation may write to the log; a guest that insists must not fill it.
const REFUSALS_LOGGED_MAX: u32 = 8;

/// What `WasiHttpHooks::send_request` returns.
pub type SendFuture = Box<dyn Future<Output = Result<Answer, wasmtime_wasi_http::Error>> + Send>;

/// A response whose body is still coming, and the rest of the exchange, which here has nothing to do: the connection
/// runs on the I/O runtime.
pub type Answer =
    (Response<WasiBody>, Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>);

/// Sends requests of guests, within [`HttpLimits`] and the allow-list of each. Cheap to clone; clones share the
/// connections.
#[derive(Clone, Debug)]
pub struct Egress(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    io: Handle,
    pub(super) limits: HttpLimits,
    pub(super) lookup: Lookup,
    pub(super) tls: Tls,
    pub(super) pool: Arc<Pool>,
}

impl Egress {
    /// A client whose sockets and timers live on `io`. Opens nothing and reads no file until the first request.
    pub fn new(io: Handle, limits: HttpLimits, roots: Roots) -> Self {
        Self::with_resolver(io, limits, roots, Arc::new(SystemResolver))
    }

    /// The same with another way to look names up.
    pub fn with_resolver(io: Handle, limits: HttpLimits, roots: Roots, resolver: Arc<dyn Resolve>) -> Self {
        let lookup = Lookup::new(resolver, &limits);
        let pool = Pool::new(io.clone(), &limits);
        Self(Arc::new(Inner { io, limits, lookup, tls: Tls::new(roots), pool }))
    }

    /// The bounds it works within.
    pub fn limits(&self) -> &HttpLimits {
        &self.0.limits
    }

    /// Sockets that are open now, idle ones included.
    pub fn open_connections(&self) -> usize {
        self.0.pool.open_count()
    }

    /// Sockets that are kept for a later request.
    pub fn idle_connections(&self) -> usize {
        self.0.pool.idle_count()
    }

    /// What one invocation of `plugin` may do: reach what `allow` names, until `deadline`.
    pub fn scope(
        &self,
        plugin: impl Into<Arc<str>>,
        allow: Arc<AllowList>,
        deadline: Option<Instant>,
    ) -> Scope {
        let max = self.0.limits.requests_per_invocation_max;
        Scope {
            plugin: plugin.into(),
            allow,
            slots: Arc::new(Semaphore::new(max)),
            slots_max: max,
            deadline,
            refusals: Arc::default(),
        }
    }

    /// Sends one request, in the shape that `WasiHttpHooks::send_request` returns.
    ///
    /// # Cancel safety
    /// Dropping the future, or the response's body before its end, closes the connection.
    pub fn send(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        scope: &Scope,
    ) -> SendFuture {
        let sending = self.request(request, options, scope);
        Box::new(async move {
            let response = sending.await?;
            let rest: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response, rest))
        })
    }

    /// Sends one request.
    ///
    /// # Errors
    /// As [`EgressError`] says; a refusal is logged with the line that would grant it.
    ///
    /// # Cancel safety
    /// As [`Egress::send`].
    pub fn request(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        scope: &Scope,
    ) -> impl Future<Output = Result<Response<WasiBody>, EgressError>> + Send + 'static + use<> {
        let (inner, scope) = (Arc::clone(&self.0), scope.clone());
        let span = tracing::Span::current();
        async move {
            let io = inner.io.clone();
            let work = async move {
                let answer = inner.exchange(request, options, &scope).await;
                answer.inspect_err(|error| scope.report(error))
            };
            let running = AbortOnDropHandle::new(io.spawn(work.instrument(span)));
            let lost = |_| Err(EgressError::Dropped { reason: "its task ended early" });
            let response = running.await.unwrap_or_else(lost)?;
            Ok(response.map(|body| body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync()))
        }
    }
}

/// What one invocation may do. Clones share its count of open requests.
#[derive(Clone, Debug)]
pub struct Scope {
    plugin: Arc<str>,
    pub(super) allow: Arc<AllowList>,
    slots: Arc<Semaphore>,
    slots_max: usize,
    /// Nothing waits longer than until the invocation's hard limit.
    pub(super) deadline: Option<Instant>,
    refusals: Arc<AtomicU32>,
}

impl Scope {
    /// The right to have one more request open.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, EgressError> {
        let full = |_| EgressError::TooManyRequests { max: self.slots_max };
        Arc::clone(&self.slots).try_acquire_owned().map_err(full)
    }

    fn report(&self, error: &EgressError) {
        if !error.is_refusal() {
            tracing::debug!(plugin = &*self.plugin, %error, "http request failed");
        } else if self.refusals.fetch_add(1, Ordering::Relaxed) < REFUSALS_LOGGED_MAX {
            let hint = error.hint(&self.plugin).unwrap_or_default();
            tracing::warn!(plugin = &*self.plugin, %error, %hint, "http request refused");
        }
    }
}
