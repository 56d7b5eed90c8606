//! A connection that is made again on demand, shared by many tasks.
//!
//! One attempt at a time, whose end everybody learns who waited for it. Pauses between attempts are the caller's.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::AsyncPushSender;
use redis::{Cmd, Pipeline, Value};
use rwork_protocol::service::{Error, RedactedUrl};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::script::Call;
use super::site::{Pushes, Site};
use super::wire::Wire;
use rwork_tls::Failure;

/// Suspicions within the time that an answer may take: a healthy server answers within a sixth of it.
const SUSPICIONS: u32 = 6;

type Outcome = Result<Arc<Wire>, Failure>;

/// A connection that is made again on demand. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    site: Arc<Site>,
    pushes: Option<Pushes>,
    /// Held for a few moves by whoever asks.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wire: Option<Arc<Wire>>,
    /// The attempt under way.
    attempt: Option<Shared<BoxFuture<'static, Option<Outcome>>>>,
}

impl Link {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self::build(site, None)
    }

    /// The same, and each connection tells what the server says unasked.
    pub(crate) fn with_pushes(site: Arc<Site>, pushes: Pushes) -> Self {
        Self::build(site, Some(pushes))
    }

    fn build(site: Arc<Site>, pushes: Option<Pushes>) -> Self {
        Self { inner: Arc::new(Inner { site, pushes, state: Mutex::default() }) }
    }

    /// The servers, for people.
    pub(crate) fn url(&self) -> &RedactedUrl {
        &self.inner.site.url
    }

    /// Sends one command; see [`Wire::command`].
    pub(crate) async fn command(&self, act: &str, cmd: &Cmd) -> Result<Value, Error> {
        let wire = self.wire().await?;
        self.watched(&wire, wire.command(act, cmd)).await
    }

    /// Sends a pipeline; see [`Wire::pipeline`].
    pub(crate) async fn pipeline(&self, act: &str, pipe: &Pipeline) -> Result<Vec<Value>, Error> {
        let wire = self.wire().await?;
        self.pipeline_on(&wire, act, pipe).await
    }

    /// Sends a pipeline over this connection of ours and no other.
    pub(crate) async fn pipeline_on(
        &self,
        wire: &Wire,
        act: &str,
        pipe: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        self.watched(wire, wire.pipeline(act, pipe)).await
    }

    /// Calls a script; see [`Wire::script`].
    pub(crate) async fn script(&self, act: &str, call: &Call<'_>) -> Result<Value, Error> {
        let wire = self.wire().await?;
        self.watched(&wire, wire.script(act, call)).await
    }

    /// A connection of its own, which is not made again. `pushes` is told what the server says unasked, and at last
    /// [`redis::PushKind::Disconnection`]; it must not block.
    pub(crate) async fn dedicated(&self, pushes: impl AsyncPushSender) -> Result<Wire, Error> {
        // Nobody listens any more: then nobody needs to know.
        let tell: Pushes = Arc::new(move |info| drop(pushes.send(info)));
        Ok(self.inner.site.connect(Some(tell)).await?)
    }

    /// The connection that stands, or a new one.
    ///
    /// # Cancel safety
    /// Cancel safe: an attempt goes on for whoever asks next.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, Failure> {
        let attempt = {
            let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(wire) = state.wire.as_ref().filter(|wire| !wire.is_broken()) {
                return Ok(Arc::clone(wire));
            }
            if state.wire.take().is_some() {
                // Said here, for with a new one at once nobody else has anything to say.
                let url = self.url();
                tracing::warn!(%url, error = "the connection was closed", "lost a connection to the server: making a new one");
            }
            match &state.attempt {
                Some(attempt) => attempt.clone(),
                None => state.attempt.insert(self.begin()).clone(),
            }
        };
        attempt.await.unwrap_or_else(|| {
            // Its task ended without an outcome: the runtime is going, or it panicked. The next one who asks begins anew.
            self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).attempt = None;
            Err(Failure::unreachable(self.url(), "connecting was interrupted", ""))
        })
    }

    /// On a task of its own, so that it ends in time whether or not anybody waits.
    fn begin(&self) -> Shared<BoxFuture<'static, Option<Outcome>>> {
        let (tell, told) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let outcome = inner.site.connect(inner.pushes.clone()).await.map(Arc::new);
            let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.attempt = None;
            state.wire = outcome.as_ref().ok().cloned();
            drop(state);
            // Whoever asked may have gone.
            let _ = tell.send(outcome);
        });
        told.map(Result::ok).boxed().shared()
    }

    /// Waits for an answer of this connection, or one of its own.
    pub(crate) async fn watched<T>(
        &self,
        wire: &Wire,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = answer => answer,
            never = self.suspect(wire) => match never {},
        }
    }

    /// When nothing comes for a while, a second connection tells a busy or paused server, which would not greet us, from a
    /// dead connection or a lost master: that is cut, so that whoever waits on it learns it long before its time is over.
    async fn suspect(&self, wire: &Wire) -> Infallible {
        let suspicion = suspicion(wire);
        loop {
            sleep(suspicion).await;
            if !wire.has_moved_within(suspicion) && self.inner.site.connect(None).await.is_ok() {
                // What was only late came while the second one was greeted.
                if !wire.has_moved_within(suspicion) {
                    wire.cut();
                }
            }
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("site", &self.site).finish_non_exhaustive()
    }
}

fn suspicion(wire: &Wire) -> Duration {
    wire.patience() / SUSPICIONS
}
