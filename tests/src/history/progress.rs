//! How far the work has come, by the workers' logs.

use std::collections::BTreeSet;

use rwork_protocol::TaskId;

use crate::journal::Reader;

/// Counts tasks that have succeeded, each once however often it ran.
#[derive(Debug)]
pub struct Progress {
    log: Reader,
    done: BTreeSet<TaskId>,
}

impl Progress {
    /// Counts from where the reader stands.
    pub fn new(log: Reader) -> Self {
        Self { log, done: BTreeSet::new() }
    }

    /// Waits until so many tasks have succeeded.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reach(&mut self, count: u64) {
        while (self.done.len() as u64) < count {
            let entry = self.log.find(|entry| entry.says("task succeeded")).await;
            self.done.extend(entry.field("task_id").and_then(|id| TaskId::new(id).ok()));
        }
    }
}
