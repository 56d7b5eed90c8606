//! Looking after what others left behind, beside whatever its own consumer does: it may take longer than a lease.
//!
//! Leases are in the time of the server's clock. Where that was put forward, by an operator or since its machine had slept,
//! everybody's lease seems to have run out: our own clock says so, and for a while no such lease is believed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::broker::locked;
use crate::handle::Inner;
use crate::lease::{Expired, Seen};
use crate::recover;

/// How much of a lease one look may take, from page to page.
const SHARE: u32 = 6;
/// How much faster than ours the server's clock may go between two looks: answers are late on a busy machine.
const DRIFT_MAX: Duration = Duration::from_secs(1);

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
    /// Held for one move.
    clock: Mutex<Clock>,
}

impl Care {
    pub(crate) fn new(inner: Arc<Inner>, node: String) -> Self {
        let (restore_at, clock) = (Mutex::new(Instant::now()), Mutex::default());
        let state = Arc::new(State { inner, node, restore_at, clock });
        Self { state, look: Mutex::default(), looked: CancellationToken::new() }
    }

    /// Begins to give back what the dead held, and what kombu's workers left behind, unless it is at it.
    pub(crate) fn look(&self, seen: Seen) {
        let dead = self.state.dead(seen);
        let mut look = locked(&self.look);
        if look.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        let (state, done) = (Arc::clone(&self.state), self.looked.clone().drop_guard());
        *look = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            state.look(dead).await;
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
    async fn look(&self, dead: Vec<Expired>) {
        let until = Instant::now() + self.inner.options.lease / SHARE;
        let lost = self.inner.broker.lost();
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

    /// Those whose recovery has begun, and those whose lease ran out by a clock that can be believed.
    fn dead(&self, seen: Seen) -> Vec<Expired> {
        let (lease, Seen { now_ms, mut expired }) = (self.inner.options.lease, seen);
        let is_believed = locked(&self.clock).believes(now_ms, Instant::now(), lease);
        expired.retain(|one| is_believed || one.is_fenced());
        expired
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

/// The server's clock beside ours.
#[derive(Debug, Default)]
struct Clock {
    /// Both, when last seen.
    last: Option<(i64, Instant)>,
    /// When everybody who lives has renewed since it was put forward.
    believed_at: Option<Instant>,
}

impl Clock {
    /// Whether what it says of leases can be believed. The first time it can't: there is nothing to compare it with.
    fn believes(&mut self, server_ms: i64, now: Instant, lease: Duration) -> bool {
        let Some((before_ms, before)) = self.last.replace((server_ms, now)) else { return false };
        let went = Duration::from_millis(u64::try_from(server_ms.saturating_sub(before_ms)).unwrap_or(0));
        let step = went.saturating_sub(now.saturating_duration_since(before));
        if step > DRIFT_MAX {
            let step_ms = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                step_ms,
                "the clock of the Redis server was put forward: leases are not believed for a while"
            );
            self.believed_at = Some(now + lease);
        }
        self.believed_at.is_none_or(|at| now >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_put_forward_is_not_believed_for_a_lease() {
        let (mut clock, start) = (Clock::default(), Instant::now());
        let mut sees = |server_ms, seconds| {
            clock.believes(server_ms, start + Duration::from_secs(seconds), Duration::from_secs(5))
        };
        assert!(!sees(1_000, 0), "there is nothing to compare it with");
        assert!(sees(3_000, 2));
        assert!(sees(5_900, 4), "an answer may be late");
        assert!(!sees(20_000, 6));
        assert!(!sees(24_000, 10));
        assert!(sees(25_000, 11));
        assert!(sees(1_000, 13), "put back it only lengthens leases");
    }
}
