//! The rpc result backend (`celery-wire.md` §4.8): a message for each state to whoever asked.

/// Results that come back to this process.
#[derive(Debug, Default)]
pub(crate) struct Replies {}
