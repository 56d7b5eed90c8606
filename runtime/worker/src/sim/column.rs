//! Promises of a store: one column of the table of promises, drawn for each world.

use std::time::Duration;

use rwork_broker::{Capabilities, Ownership};

const LEASE: Duration = Duration::from_secs(10);

/// One column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) ownership: Ownership,
    /// Results are kept where messages are.
    pub(super) commits_records: bool,
    pub(super) delayed: bool,
    /// A lost connection is answered as deliveries that are gone, not as a death.
    pub(super) stands_again: bool,
    /// Starts without an outcome, before a message is given up.
    pub(super) deliveries_max: u32,
    /// A stored success of a redelivered message is its outcome.
    pub(super) deduplicates: bool,
}

impl Column {
    pub(super) fn draw(rng: &mut fastrand::Rng) -> Self {
        let ownership = match rng.u32(0..6) {
            0..=2 => Ownership::Lease(LEASE),
            3..=4 => Ownership::Process,
            _ => Ownership::Connection,
        };
        Self {
            commits_records: rng.bool() && ownership != Ownership::Connection,
            ownership,
            delayed: rng.u32(0..10) > 0,
            stands_again: rng.bool(),
            deliveries_max: rng.u32(2..=5),
            deduplicates: rng.bool(),
        }
    }

    /// Leases, and results elsewhere.
    pub(super) fn elsewhere() -> Self {
        Self {
            ownership: Ownership::Lease(LEASE),
            commits_records: false,
            delayed: true,
            stands_again: false,
            deliveries_max: 5,
            deduplicates: true,
        }
    }

    pub(super) fn is_connection(&self) -> bool {
        self.ownership == Ownership::Connection
    }

    /// True if there is something between a worker and the store that can be cut.
    pub(super) fn has_lines(&self) -> bool {
        self.ownership != Ownership::Process
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            delayed: self.delayed,
            priorities: None,
            ownership: self.ownership,
            commits_records: self.commits_records,
            counts_deliveries: true,
            atomic_publish: true,
            exchanges: false,
            message_bytes_max: 1 << 20,
        }
    }
}
