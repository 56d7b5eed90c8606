//! The cap over all linear memories of one invocation, and the bounds on tables, instances and memories.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::control::Control;
use crate::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// One total for all memories: wasmtime's own limits are per memory, and a component may have many.
#[derive(Debug)]
pub(crate) struct MemoryCap {
    cap: usize,
    used: usize,
    last_growth: usize,
    /// The total that was refused, if any was: a failed allocation looks like a panic otherwise.
    denied: Option<usize>,
    control: Arc<Control>,
}

impl MemoryCap {
    pub(crate) fn new(cap: usize, control: Arc<Control>) -> Self {
        Self { cap, used: 0, last_growth: 0, denied: None, control }
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }

    pub(crate) fn denied(&self) -> Option<usize> {
        self.denied
    }
}

impl ResourceLimiter for MemoryCap {
    /// Refusing makes `memory.grow` return -1, so that a guest can collect garbage and go on.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last_growth = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false); // The guest's own bound, no business of the cap.
        }
        let growth = desired.saturating_sub(current);
        let total = self.used.saturating_add(growth);
        if total > self.cap {
            self.denied = Some(total);
            return Ok(false);
        }
        self.last_growth = growth;
        self.used = total;
        self.control.note_memory(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // Allowed above and then refused by the system: out of memory all the same, and not in use.
        let growth = std::mem::take(&mut self.last_growth);
        if growth > 0 {
            self.denied.get_or_insert(self.used);
            self.used = self.used.saturating_sub(growth);
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        usize::try_from(CORE_INSTANCES_MAX).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(TABLES_MAX).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MEMORIES_MAX).unwrap_or(usize::MAX)
    }
}
