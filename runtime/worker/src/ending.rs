//! The ways in which a delivery can end, and the one place that decides what the broker is told.

use rwork_broker::{Disposition, Reason};
use rwork_protocol::Timestamp;

/// How a delivery ends. Each is told apart all the way to the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// About to run: the moment of the early ack.
    Starting,
    /// A value was returned.
    Succeeded,
    /// The task's own error, or a result that is not what it claims to be; `reason` is for the dead letters, where a
    /// failure must not be acked.
    Failed { reason: Reason },
    /// Published again as the next attempt.
    Retried,
    /// Nothing is stored, by the task's wish.
    Ignored,
    /// Another signature took its place.
    Replaced,
    /// The task refused the message.
    Rejected { requeue: bool, reason: Reason },
    /// The soft limit passed, and the task failed with it.
    SoftTimeLimit { reason: Reason },
    /// Killed at the hard limit.
    HardTimeLimit,
    /// Killed for want of memory.
    MemoryLimit,
    /// The result is larger than allowed.
    ResultTooLarge { reason: Reason },
    /// A trap or a panic.
    Trapped,
    /// Revoked, before it ran or while it ran.
    Revoked,
    /// Past its `expires`: never started.
    Expired,
    /// Not due yet: the broker holds it back until then.
    Parked { until: Timestamp },
    /// An earlier delivery of the same message has succeeded.
    Repeated,
    /// It can't be run: unknown, undecodable, over the redelivery cap.
    Refused(Reason),
    /// Killed because the worker is going down.
    ShutDown,
    /// Never started.
    Released,
    /// rwork's own failure.
    HostFault,
    /// The session was lost: somebody else's now.
    Lost,
}

/// A task's choices about acks, in Celery's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AckPolicy {
    /// Ack after the result is stored, not before the run. rwork's default.
    pub(crate) acks_late: bool,
    /// Ack a failed task; otherwise it is a dead letter.
    pub(crate) acks_on_failure: bool,
    /// Ack a task killed at its hard limit; otherwise it goes back to its queue, counted.
    pub(crate) acks_on_timeout: bool,
    /// A task that took its sandbox with it goes back to its queue, counted, with no result.
    pub(crate) reject_on_worker_lost: bool,
}

impl Default for AckPolicy {
    fn default() -> Self {
        Self { acks_late: true, acks_on_failure: true, acks_on_timeout: true, reject_on_worker_lost: false }
    }
}

/// Every ack decision of this worker. `None`: nothing is told now.
pub(crate) fn disposition(ending: &Ending, policy: AckPolicy) -> Option<Disposition> {
    let decided = match ending {
        Ending::Starting if policy.acks_late => return None,
        Ending::Starting => Disposition::Ack,
        Ending::Succeeded => Disposition::Ack,
        Ending::Failed { .. } if policy.acks_on_failure => Disposition::Ack,
        Ending::SoftTimeLimit { .. } if policy.acks_on_failure => Disposition::Ack,
        Ending::ResultTooLarge { .. } if policy.acks_on_failure => Disposition::Ack,
        Ending::Failed { reason } | Ending::SoftTimeLimit { reason } | Ending::ResultTooLarge { reason } => {
            Disposition::DeadLetter(reason.clone())
        }
        Ending::Retried => Disposition::Ack,
        Ending::Ignored => Disposition::Ack,
        Ending::Replaced => Disposition::Ack,
        Ending::Rejected { requeue: true, .. } => Disposition::Requeue,
        Ending::Rejected { requeue: false, reason } => Disposition::DeadLetter(reason.clone()),
        Ending::HardTimeLimit if policy.acks_on_timeout => Disposition::Ack,
        Ending::HardTimeLimit => Disposition::Requeue,
        Ending::MemoryLimit | Ending::Trapped if policy.reject_on_worker_lost => Disposition::Requeue,
        Ending::MemoryLimit | Ending::Trapped => Disposition::Ack,
        Ending::Revoked => Disposition::Ack,
        Ending::Expired => Disposition::Ack,
        // One step: a copy and an ack would be two, and a worker that dies between them would double the task.
        Ending::Parked { until } => Disposition::Delay(*until),
        Ending::Repeated => Disposition::Ack,
        Ending::Refused(reason) => Disposition::DeadLetter(reason.clone()),
        // The guest is not to blame for a shutdown, so it does not count towards the redelivery cap.
        Ending::ShutDown => Disposition::Interrupt,
        Ending::Released => Disposition::Release,
        // Counted, so that a message that always meets a fault ends as a dead letter.
        Ending::HostFault => Disposition::Requeue,
        Ending::Lost => return None,
    };
    Some(decided)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(kind: &str) -> Reason {
        Reason {
            kind: kind.to_owned(),
            detail: String::new(),
            worker: "w".to_owned(),
            at: Timestamp::default(),
        }
    }

    fn decide(ending: &Ending, policy: AckPolicy) -> Option<Disposition> {
        disposition(ending, policy)
    }

    #[test]
    fn what_must_not_be_acked_is_not() {
        let policy = AckPolicy::default();
        let dead = |kind: &str| Some(Disposition::DeadLetter(reason(kind)));
        assert_eq!(decide(&Ending::Starting, policy), None);
        assert_eq!(decide(&Ending::Lost, policy), None);
        assert_eq!(decide(&Ending::Refused(reason("unknown-task")), policy), dead("unknown-task"));
        assert_eq!(
            decide(&Ending::Rejected { requeue: false, reason: reason("rejected") }, policy),
            dead("rejected")
        );
        assert_eq!(
            decide(&Ending::Rejected { requeue: true, reason: reason("rejected") }, policy),
            Some(Disposition::Requeue)
        );
        assert_eq!(decide(&Ending::HostFault, policy), Some(Disposition::Requeue));
        assert_eq!(decide(&Ending::ShutDown, policy), Some(Disposition::Interrupt));
        assert_eq!(decide(&Ending::Released, policy), Some(Disposition::Release));
        let until = Timestamp::from_micros(7);
        assert_eq!(decide(&Ending::Parked { until }, policy), Some(Disposition::Delay(until)));
    }

    #[test]
    fn celerys_switches_are_honoured() {
        let with = |change: fn(&mut AckPolicy)| {
            let mut policy = AckPolicy::default();
            change(&mut policy);
            policy
        };
        let early = with(|policy| policy.acks_late = false);
        assert_eq!(decide(&Ending::Starting, early), Some(Disposition::Ack));
        let reason = || reason("failed");
        for ending in [
            Ending::Failed { reason: reason() },
            Ending::SoftTimeLimit { reason: reason() },
            Ending::ResultTooLarge { reason: reason() },
        ] {
            let strict = with(|policy| policy.acks_on_failure = false);
            assert_eq!(decide(&ending, strict), Some(Disposition::DeadLetter(reason())));
            assert_eq!(decide(&ending, AckPolicy::default()), Some(Disposition::Ack));
        }
        let again = with(|policy| policy.acks_on_timeout = false);
        assert_eq!(decide(&Ending::HardTimeLimit, again), Some(Disposition::Requeue));
        assert_eq!(decide(&Ending::HardTimeLimit, AckPolicy::default()), Some(Disposition::Ack));
        for ending in [Ending::Trapped, Ending::MemoryLimit] {
            let again = with(|policy| policy.reject_on_worker_lost = true);
            assert_eq!(decide(&ending, again), Some(Disposition::Requeue));
            assert_eq!(decide(&ending, AckPolicy::default()), Some(Disposition::Ack));
        }
    }

    #[test]
    fn what_has_ended_is_acked() {
        for ending in [
            Ending::Succeeded,
            Ending::Retried,
            Ending::Ignored,
            Ending::Replaced,
            Ending::Revoked,
            Ending::Expired,
            Ending::Repeated,
        ] {
            assert_eq!(decide(&ending, AckPolicy::default()), Some(Disposition::Ack), "{ending:?}");
        }
    }
}
