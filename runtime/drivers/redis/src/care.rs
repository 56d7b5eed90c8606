//! Looking after what others left behind, beside whatever its own consumer does: it may take longer than a lease.
//!
//! Leases are in the time of the server's clock, which may be put forward. So a lease that ran out is believed when the next
//! renewal finds it unchanged: whoever lives has renewed it by then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::locked;
use crate::handle::Inner;
use crate::lease::Expired;
use crate::recover;

/// How much of a lease one look may take, from page to page.
const SHARE: u32 = 6;

/// One consumer's looking after others. Ends with it.
#[derive(Debug)]
pub(crate) struct Care {
    state: Arc<State>,
    /// One look at a time. Held for one move.
    look: Mutex<Option<AbortOnDropHandle<()>>>,
    /// Done with the first look, or given up: what it gave back comes before what is taken then.
    looked: CancellationToken,
}

#[derive(Debug)]
struct State {
    inner: Arc<Inner>,
    /// Node name, for what becomes a dead letter.
    node: String,
    /// When to look next for what kombu's workers left behind. Held for one move.
    restore_at: Mutex<Instant>,
    /// Leases that had run out when last seen. Held for one move.
    suspects: Mutex<Vec<Expired>>,
}

impl Care {
    pub(crate) fn new(inner: Arc<Inner>, node: String) -> Self {
        let (restore_at, suspects) = (Mutex::new(Instant::now()), Mutex::default());
        let state = Arc::new(State { inner, node, restore_at, suspects });
        Self { state, look: Mutex::default(), looked: CancellationToken::new() }
    }

    /// Begins to give back what the dead held, and what kombu's workers left behind, unless it is at it.
    pub(crate) fn look(&self, expired: Vec<Expired>) {
        let mut look = locked(&self.look);
        if look.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        let (state, done) = (Arc::clone(&self.state), self.looked.clone().drop_guard());
        *look = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            state.look(expired).await;
            drop(done);
        })));
    }

    /// Resolves when the first look is over.
    pub(crate) async fn has_looked(&self) {
        self.looked.cancelled().await;
    }

    /// Begins no more, and stops what is under way: others go on from there.
    pub(crate) fn end(&self) {
        *locked(&self.look) = None;
    }
}

impl State {
    /// A failure is no failure of ours: another look follows, here or elsewhere.
    async fn look(&self, expired: Vec<Expired>) {
        let until = Instant::now() + self.inner.options.lease / SHARE;
        let lost = self.inner.broker.lost();
        let dead = self.confirm(expired);
        if (!dead.is_empty() || !lost.is_empty())
            && let Err(error) = recover::recover(&self.inner, &self.node, &lost, &dead, until).await
        {
            tracing::warn!(%error, "failed to recover what dead workers held: trying again soon");
        }
        if self.is_restoring_due()
            && let Err(error) = recover::restore_overdue(&self.inner, &self.node, until).await
        {
            tracing::warn!(%error, "failed to restore what was not settled in time: trying again later");
        }
    }

    /// Those that were found so before, or whose recovery has begun.
    fn confirm(&self, expired: Vec<Expired>) -> Vec<Expired> {
        let mut suspects = locked(&self.suspects);
        let dead = expired.iter().filter(|one| one.is_fenced() || suspects.contains(one)).cloned().collect();
        *suspects = expired;
        dead
    }

    fn is_restoring_due(&self) -> bool {
        let (now, mut at) = (Instant::now(), locked(&self.restore_at));
        let is_due = *at <= now;
        if is_due {
            let interval: Duration = recover::restore_interval(&self.inner);
            *at = now + interval;
        }
        is_due
    }
}
