//! How many bytes of bodies are in memory, decoded: bounded, since a small compressed message may be a large one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Nothing more is taken while so many bytes are held. A batch may go beyond it by one body, whose size has a limit of its
/// own (`DecodeLimits`).
pub const BODIES_BYTES_MAX: usize = 256 << 20;

/// The bodies of one worker.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    bytes: AtomicUsize,
    /// Rung when one is gone.
    gone: Notify,
}

/// One body, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: usize,
    of: Arc<Bodies>,
}

impl Bodies {
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Body {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Body { bytes, of: Arc::clone(self) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= BODIES_BYTES_MAX
    }

    /// Resolves when one has gone. Cancel safe.
    pub(crate) async fn one_gone(&self) {
        self.gone.notified().await;
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let before = self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        // Nobody waits while there is room.
        if before >= BODIES_BYTES_MAX {
            self.of.gone.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn whoever_waits_for_room_is_told() {
        let bodies = Arc::new(Bodies::default());
        let (small, large) = (bodies.hold(1), bodies.hold(BODIES_BYTES_MAX));
        assert!(bodies.is_full() && bodies.one_gone().now_or_never().is_none());
        drop(large);
        assert!(!bodies.is_full() && bodies.one_gone().now_or_never().is_some());
        drop(small);
        assert!(bodies.one_gone().now_or_never().is_none(), "nobody waits while there is room");
    }
}
