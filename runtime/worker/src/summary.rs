//! What a worker has done, counted when it was committed.

use crate::ending::Ending;

/// Deliveries by how they ended. A delivery is counted once, when the broker has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Returned a value.
    pub succeeded: u64,
    /// Failed by their own error.
    pub failed: u64,
    /// Published again as the next attempt.
    pub retried: u64,
    /// Ignored by their own wish.
    pub ignored: u64,
    /// Replaced by another signature.
    pub replaced: u64,
    /// Refused by the task.
    pub rejected: u64,
    /// Failed with their soft limit.
    pub soft_time_limit: u64,
    /// Killed at their hard limit.
    pub hard_time_limit: u64,
    /// Killed for want of memory.
    pub memory_limit: u64,
    /// Returned more than allowed.
    pub result_too_large: u64,
    /// Trapped or panicked.
    pub trapped: u64,
    /// Revoked.
    pub revoked: u64,
    /// Past their `expires`, never started.
    pub expired: u64,
    /// Not due yet: given back to the broker until they are.
    pub parked: u64,
    /// Run before with success, only acked now.
    pub repeated: u64,
    /// Dead letters: unknown, undecodable, over the redelivery cap.
    pub refused: u64,
    /// Killed by shutdown, given back.
    pub shut_down: u64,
    /// Given back unstarted.
    pub released: u64,
    /// Ended by rwork's own failure, given back.
    pub host_faults: u64,
    /// Not ours any more when they ended.
    pub lost: u64,
}

impl Summary {
    pub(crate) fn count(&mut self, ending: &Ending) {
        let counter = match ending {
            Ending::Starting => return,
            Ending::Succeeded => &mut self.succeeded,
            Ending::Failed { .. } => &mut self.failed,
            Ending::Retried => &mut self.retried,
            Ending::Ignored => &mut self.ignored,
            Ending::Replaced => &mut self.replaced,
            Ending::Rejected { .. } => &mut self.rejected,
            Ending::SoftTimeLimit { .. } => &mut self.soft_time_limit,
            Ending::HardTimeLimit => &mut self.hard_time_limit,
            Ending::MemoryLimit => &mut self.memory_limit,
            Ending::ResultTooLarge { .. } => &mut self.result_too_large,
            Ending::Trapped => &mut self.trapped,
            Ending::Revoked => &mut self.revoked,
            Ending::Expired => &mut self.expired,
            Ending::Parked { .. } => &mut self.parked,
            Ending::Repeated => &mut self.repeated,
            Ending::Refused(_) => &mut self.refused,
            Ending::ShutDown => &mut self.shut_down,
            Ending::Released => &mut self.released,
            Ending::HostFault => &mut self.host_faults,
            Ending::Lost => &mut self.lost,
        };
        *counter += 1;
    }

    /// Tasks that ran to an outcome.
    pub fn ran(&self) -> u64 {
        self.succeeded
            + self.failed
            + self.retried
            + self.ignored
            + self.replaced
            + self.rejected
            + self.soft_time_limit
            + self.hard_time_limit
            + self.memory_limit
            + self.result_too_large
            + self.trapped
    }
}
