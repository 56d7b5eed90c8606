//! A bounded queue from async callers to a thread that also listens to a bell and a timer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Callers that may wait for a turn at once; more wait outside. A turn takes far fewer, so a deeper queue only adds delay.
const WAITING_MAX: usize = 1024;

/// The queue. Callers send and ring; one thread waits.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    /// Held for a few moves by callers and the thread, never across a wait for anything else.
    state: Mutex<State<T>>,
    wake: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, OwnedSemaphorePermit)>,
    rung: bool,
    closed: bool,
}

/// Why the thread woke.
#[derive(Debug)]
pub(crate) struct Woken<T> {
    /// What was sent, in order.
    pub(crate) items: Vec<T>,
    /// Something may have changed in the file, or for a consumer.
    pub(crate) rung: bool,
    /// Nothing will come any more.
    pub(crate) closed: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), rung: false, closed: false }),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// Queues an item; false when closed.
    ///
    /// # Cancel safety
    /// A cancelled call has queued nothing.
    pub(crate) async fn send(&self, item: T) -> bool {
        let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return false };
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.items.push_back((item, permit));
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Makes the thread look.
    pub(crate) fn ring(&self) {
        self.lock().rung = true;
        self.wake.notify_one();
    }

    /// Takes nothing more. The thread still gets what was queued.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Drops what nobody will take; called when the thread has ended, so that callers get an error instead of silence.
    pub(crate) fn abandon(&self) {
        self.close();
        let left = std::mem::take(&mut self.lock().items);
        drop(left);
    }

    /// Waits for an item, a ring, the end, or `deadline`; takes up to `most` items.
    pub(crate) fn wait(&self, deadline: Option<Instant>, most: usize) -> Woken<T> {
        let mut state = self.lock();
        while state.items.is_empty() && !state.rung && !state.closed {
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let count = state.items.len().min(most);
        let items = state.items.drain(..count).map(|(item, _permit)| item).collect();
        let rung = std::mem::take(&mut state.rung);
        Woken { items, rung, closed: state.closed && state.items.is_empty() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
