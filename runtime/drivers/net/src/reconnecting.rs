//! A connection that is made again on demand, shared by many tasks.
//!
//! One attempt at a time, whose end everybody learns who waited for it. An outage is logged when it is noticed and when it
//! ends. Pauses between attempts are the caller's, and nothing is ever sent twice.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rwork_protocol::service::RedactedUrl;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::Failure;

/// How a kind of connection is made.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// One connection, which ends when it is lost.
    type Connection: Send + Sync + 'static;

    /// The servers, for people.
    fn url(&self) -> &RedactedUrl;

    /// Makes a connection, or fails by a deadline of its own.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Tells that every further call on this connection fails.
    fn is_lost(connection: &Self::Connection) -> bool;
}

type Outcome<C> = Result<Arc<<C as Connector>::Connection>, Failure>;

/// A connection that is made again on demand. Cloning shares it.
pub struct Reconnecting<C: Connector> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: Connector> {
    connector: C,
    /// Held for a few moves by whoever asks.
    state: Mutex<State<C>>,
}

struct State<C: Connector> {
    connection: Option<Arc<C::Connection>>,
    /// The attempt under way.
    attempt: Option<Shared<BoxFuture<'static, Option<Outcome<C>>>>>,
    /// When the last connection was found lost.
    outage: Option<Instant>,
}

impl<C: Connector> Reconnecting<C> {
    /// Connects when it is asked for the first time.
    pub fn new(connector: C) -> Self {
        let state = State { connection: None, attempt: None, outage: None };
        Self { inner: Arc::new(Inner { connector, state: Mutex::new(state) }) }
    }

    /// What makes the connections.
    pub fn connector(&self) -> &C {
        &self.inner.connector
    }

    /// The connection that stands, or a new one.
    ///
    /// # Errors
    /// Why the attempt failed; the next call begins another one.
    ///
    /// # Cancel safety
    /// Cancel safe: an attempt goes on for whoever asks next.
    pub async fn connection(&self) -> Outcome<C> {
        let attempt = {
            let mut state = self.inner.locked();
            if let Some(connection) = state.connection.as_ref().filter(|connection| !C::is_lost(connection)) {
                return Ok(Arc::clone(connection));
            }
            if state.connection.take().is_some() {
                state.outage.get_or_insert_with(Instant::now);
                let url = self.inner.connector.url();
                tracing::warn!(%url, "lost a connection to the server: making a new one");
            }
            match &state.attempt {
                Some(attempt) => attempt.clone(),
                None => state.attempt.insert(self.attempt()).clone(),
            }
        };
        attempt.await.unwrap_or_else(|| {
            // Its task ended without an outcome: the runtime is going, or it panicked. The next one who asks begins anew.
            self.inner.locked().attempt = None;
            Err(Failure::unreachable(self.inner.connector.url(), "connecting was interrupted", ""))
        })
    }

    /// On a task of its own, so that it ends in time whether or not anybody waits.
    fn attempt(&self) -> Shared<BoxFuture<'static, Option<Outcome<C>>>> {
        let (tell, told) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let outcome = inner.connector.connect().await.map(Arc::new);
            inner.ended(&outcome);
            // Whoever asked may have gone.
            let _ = tell.send(outcome);
        });
        told.map(Result::ok).boxed().shared()
    }
}

impl<C: Connector> Inner<C> {
    fn ended(&self, outcome: &Outcome<C>) {
        let mut state = self.locked();
        state.attempt = None;
        state.connection = outcome.as_ref().ok().cloned();
        let outage = state.outage.take_if(|_| outcome.is_ok());
        drop(state);
        if let Some(since) = outage {
            let outage_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(url = %self.connector.url(), outage_ms, "connected again");
        }
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn locked(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connector> Clone for Reconnecting<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: Connector> fmt::Debug for Reconnecting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting").field("connector", &self.inner.connector).finish_non_exhaustive()
    }
}
