//! Bytes that a worker holds between receipt and commit: bodies of messages, results, follow-ups.
//!
//! Half of the budget is for bodies, and prefetch obeys it; half is for results and what follows them, and a result waits in
//! its guest until it is granted. Two halves, so that bodies which wait for a slot never keep a result from being stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, Notify};

/// Bytes between receipt and commit, unless configured otherwise (`worker_bytes_max`).
pub const BYTES_MAX: usize = 256 << 20;

/// Both halves.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes of messages, decoded: a small compressed one may be large.
    pub(crate) bodies: Arc<Pool>,
    /// Bytes of outcomes.
    pub(crate) results: Arc<Pool>,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let half = || Arc::new(Pool::new(bytes_max / 2));
        Self { bodies: half(), results: half() }
    }
}

/// One half.
#[derive(Debug)]
pub(crate) struct Pool {
    max: usize,
    used: AtomicUsize,
    /// Rung when some of it is free again.
    freed: Notify,
    /// Held by the one whose turn it is to wait for room: a large one is not passed by small ones for ever.
    turn: Mutex<()>,
}

/// Bytes that are taken, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Grant {
    bytes: usize,
    of: Arc<Pool>,
}

impl Pool {
    fn new(max: usize) -> Self {
        Self { max: max.max(1), used: AtomicUsize::new(0), freed: Notify::new(), turn: Mutex::new(()) }
    }

    /// Bytes that are free.
    pub(crate) fn room(&self) -> usize {
        self.max.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes bytes that are there already, whether or not they fit.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Grant {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Grant { bytes, of: Arc::clone(self) }
    }

    /// Takes bytes if they fit and nobody waits; more than the whole pool only while nothing else is taken.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        let _turn = self.turn.try_lock().ok()?;
        self.take_if_it_fits(bytes)
    }

    fn take_if_it_fits(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        let fits = |used: usize| {
            let after = used.saturating_add(bytes);
            (after <= self.max || used == 0).then_some(after)
        };
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.is_ok().then(|| Grant { bytes, of: Arc::clone(self) })
    }

    /// Waits until they fit, in turn. Cancel safe.
    pub(crate) async fn take_when_free(self: &Arc<Self>, bytes: usize) -> Grant {
        let _turn = self.turn.lock().await;
        loop {
            // Made before the look, so that nothing freed in between is missed.
            let freed = self.freed.notified();
            if let Some(grant) = self.take_if_it_fits(bytes) {
                return grant;
            }
            freed.await;
        }
    }

    /// Resolves when some of it is free. Cancel safe.
    pub(crate) async fn until_room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.room() > 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.of.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.of.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_what_never_fits_goes_alone() {
        let pool = Arc::new(Pool::new(100));
        let small = pool.try_take(60).unwrap();
        assert!(pool.try_take(41).is_none() && pool.room() == 40);
        assert!(pool.take_when_free(1000).now_or_never().is_none());
        drop(small);
        let huge = pool.take_when_free(1000).now_or_never().unwrap();
        assert!(pool.try_take(1).is_none());
        drop(huge);
        assert!(pool.try_take(100).is_some());
    }

    #[tokio::test]
    async fn what_is_freed_before_anybody_waits_is_room() {
        let pool = Arc::new(Pool::new(10));
        let all = pool.take(10);
        assert!(pool.until_room().now_or_never().is_none());
        drop(all);
        pool.until_room().await;
    }

    #[tokio::test]
    async fn a_large_one_has_its_turn_among_small_ones() {
        let pool = Arc::new(Pool::new(10));
        let small = [pool.take(5), pool.take(5)];
        let large = pool.take_when_free(10);
        tokio::pin!(large);
        assert!(large.as_mut().now_or_never().is_none());
        let [first, second] = small;
        drop(first);
        assert!(pool.try_take(5).is_none(), "somebody waits for it");
        assert!(pool.take_when_free(5).now_or_never().is_none());
        drop(second);
        assert_eq!(large.await.bytes, 10);
    }

    #[tokio::test]
    async fn all_who_wait_are_told_what_is_freed() {
        let pool = Arc::new(Pool::new(10));
        let first = pool.take(10);
        let waiting = [pool.take_when_free(5), pool.take_when_free(5)];
        let waiting = futures_util::future::join_all(waiting);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(waiting.await.len(), 2);
    }
}
