//! A gate that threads wait at while it is shut.

use std::sync::{Condvar, Mutex, PoisonError};

/// Open or shut.
#[derive(Debug)]
pub(super) struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// A gate that is open.
    pub(super) fn open() -> Self {
        Self { is_open: Mutex::new(true), changed: Condvar::new() }
    }

    /// A gate that is shut.
    pub(super) fn closed() -> Self {
        Self { is_open: Mutex::new(false), changed: Condvar::new() }
    }

    /// Stops who comes from now on.
    pub(super) fn shut(&self) {
        self.set(false);
    }

    /// Lets all go on who wait, and who come.
    pub(super) fn let_pass(&self) {
        self.set(true);
    }

    /// Waits until it is open.
    pub(super) fn pass(&self) {
        let is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread that panicked while it held the lock has changed nothing by halves.
        drop(self.changed.wait_while(is_open, |is_open| !*is_open));
    }

    fn set(&self, open: bool) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = open;
        self.changed.notify_all();
    }
}
