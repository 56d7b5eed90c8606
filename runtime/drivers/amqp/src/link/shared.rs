//! A connection that is made again on demand, shared by many tasks.
//!
//! One attempt at a time, whose end everybody learns who waited for it. Pauses between attempts are the caller's.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use rwork_protocol::service::{Error, RedactedUrl};
use rwork_tls::Failure;
use tokio::sync::{oneshot, watch};

use super::site::Site;
use super::wire::{Blocked, Wire};

type Outcome = Result<Arc<Wire>, Failure>;

/// A connection that is made again on demand. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    site: Arc<Site>,
    purpose: &'static str,
    /// Written by whichever connection stands.
    blocked: watch::Sender<Blocked>,
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
    /// `purpose` is shown to the server's operators after our name.
    pub(crate) fn new(site: Arc<Site>, purpose: &'static str) -> Self {
        let blocked = watch::Sender::new(None);
        Self { inner: Arc::new(Inner { site, purpose, blocked, state: Mutex::default() }) }
    }

    /// The servers, for people.
    pub(crate) fn url(&self) -> &RedactedUrl {
        &self.inner.site.url
    }

    /// Why the server takes nothing from this connection just now; `None`: it does.
    pub(crate) fn blocked(&self) -> watch::Receiver<Blocked> {
        self.inner.blocked.subscribe()
    }

    /// Opens a channel, connecting where needed. Dropping the channel and its clones closes it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn channel(&self) -> Result<lapin::Channel, Error> {
        self.wire().await?.channel().await
    }

    /// The connection that stands, or a new one.
    ///
    /// # Cancel safety
    /// Cancel safe: an attempt goes on for whoever asks next.
    pub(crate) async fn wire(&self) -> Result<Arc<Wire>, Failure> {
        let attempt = {
            let mut state = self.inner.locked();
            if let Some(wire) = state.wire.as_ref().filter(|wire| !wire.is_broken()) {
                return Ok(Arc::clone(wire));
            }
            state.wire = None;
            match &state.attempt {
                Some(attempt) => attempt.clone(),
                None => state.attempt.insert(self.begin()).clone(),
            }
        };
        attempt.await.unwrap_or_else(|| {
            // Its task ended without an outcome: the runtime is going, or it panicked. The next one who asks begins anew.
            self.inner.locked().attempt = None;
            Err(Failure::unreachable(self.url(), "connecting was interrupted", ""))
        })
    }

    /// On a task of its own, so that it ends in time whether or not anybody waits.
    fn begin(&self) -> Shared<BoxFuture<'static, Option<Outcome>>> {
        let (tell, told) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let outcome = inner.site.connect(inner.purpose).await.map(Arc::new);
            if let Ok(wire) = &outcome {
                wire.tell_blocked(inner.blocked.clone());
            }
            let mut state = inner.locked();
            state.attempt = None;
            state.wire = outcome.as_ref().ok().cloned();
            drop(state);
            // Whoever asked may have gone.
            let _ = tell.send(outcome);
        });
        told.map(Result::ok).boxed().shared()
    }
}

impl Inner {
    /// A panic elsewhere leaves nothing half done in it.
    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("site", &self.site)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
