//! Records by task id. A SUCCESS is final.

use std::collections::BTreeMap;

use rwork_backend::{Store as ToStore, Stored};
use rwork_protocol::{Record, State, TaskId};

/// All records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    by_id: BTreeMap<TaskId, Record>,
}

impl Records {
    pub(crate) fn get(&self, id: &TaskId) -> Option<&Record> {
        self.by_id.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&TaskId, &Record)> {
        self.by_id.iter()
    }

    pub(crate) fn put(&mut self, store: &ToStore) -> Stored {
        let record = &store.record;
        if self.by_id.get(&record.task_id).is_some_and(|stands| stands.status == State::Success) {
            return Stored::Kept;
        }
        self.by_id.insert(record.task_id.clone(), record.clone());
        Stored::Written
    }

    pub(crate) fn forget(&mut self, id: &TaskId) -> bool {
        self.by_id.remove(id).is_some()
    }
}
