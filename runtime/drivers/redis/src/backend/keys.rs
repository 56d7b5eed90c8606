//! The backend's key names.

use rwork_protocol::TaskId;

/// Key names under one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// Celery puts `_` behind a prefix unless it ends in one of `: _ - .` (`rp` → `rp_celery-task-meta-…`).
    pub(crate) fn new(global_keyprefix: &str) -> Self {
        let ends = global_keyprefix.is_empty() || global_keyprefix.ends_with([':', '_', '-', '.']);
        Self { prefix: format!("{global_keyprefix}{}", if ends { "" } else { "_" }) }
    }

    /// `celery-task-meta-<id>`: the record, and the channel that tells of it.
    pub(crate) fn record(&self, id: &TaskId) -> String {
        format!("{}celery-task-meta-{id}", self.prefix)
    }

    /// A channel like those of records, of no task.
    pub(crate) fn probe(&self) -> String {
        format!("{}celery-task-meta-", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_set_off_as_celery_does_it() {
        let id = TaskId::new("i").unwrap();
        for (prefix, key) in [
            ("", "celery-task-meta-i"),
            ("rp", "rp_celery-task-meta-i"),
            ("rp:", "rp:celery-task-meta-i"),
            ("rp_", "rp_celery-task-meta-i"),
            ("rp-", "rp-celery-task-meta-i"),
            ("rp.", "rp.celery-task-meta-i"),
            ("a b", "a b_celery-task-meta-i"),
        ] {
            assert_eq!(Keys::new(prefix).record(&id), key, "{prefix}");
        }
    }
}
