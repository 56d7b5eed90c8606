//! A value that others wait on. Whoever waits is woken in the order of asking, so that a run can be repeated.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A value and its bell.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    /// Held for one move.
    value: Mutex<T>,
    /// Rung at each change.
    changed: Notify,
}

impl<T: Copy> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn get(&self) -> T {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets it where `next` has something to set; true when it had.
    pub(crate) fn update(&self, next: impl FnOnce(T) -> Option<T>) -> bool {
        let updated = {
            let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            next(*value).map(|next| *value = next).is_some()
        };
        if updated {
            self.changed.notify_waiters();
        }
        updated
    }

    /// Resolves when it is so; returns it. Cancel safe.
    pub(crate) async fn until(&self, wanted: impl Fn(T) -> bool) -> T {
        loop {
            // Made before the look, so that no change in between is missed.
            let changed = self.changed.notified();
            let value = self.get();
            if wanted(value) {
                return value;
            }
            changed.await;
        }
    }
}
