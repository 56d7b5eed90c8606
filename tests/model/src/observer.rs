//! The rule by which a consumer finds another one dead: observed, not computed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::member::ConsumerId;

/// Own renewals that must have been answered since a counter was first seen as it is.
const RENEWALS_MIN: u32 = 4;

/// Observations of one consumer about the others.
#[derive(Clone, Debug)]
pub struct Observer {
    lease: Duration,
    /// After an outage of its own it counts nobody for so long.
    pause: Duration,
    counts_from: Duration,
    seen: BTreeMap<ConsumerId, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    counter: u64,
    since: Duration,
    renewals: u32,
}

impl Observer {
    /// `longest_outage`: the longest pause and the deadline for a new connection of others.
    pub fn new(lease: Duration, longest_outage: Duration) -> Self {
        let pause = lease + longest_outage;
        Self { lease, pause, counts_from: Duration::ZERO, seen: BTreeMap::new() }
    }

    /// A renewal of its own failed, at this moment of its monotonic clock.
    pub fn failed(&mut self, now: Duration) {
        self.seen.clear();
        self.counts_from = now + self.pause;
    }

    /// A renewal of its own was answered with these counters; returns those that are dead.
    pub fn answered(&mut self, now: Duration, others: &[(ConsumerId, u64)]) -> Vec<(ConsumerId, u64)> {
        self.seen.retain(|id, _| others.iter().any(|(other, _)| other == id));
        let mut dead = Vec::new();
        for (id, counter) in others.iter().copied() {
            let first = Seen { counter, since: now, renewals: 0 };
            let seen = self.seen.entry(id).or_insert(first);
            if seen.counter != counter || now < self.counts_from {
                *seen = first;
                continue;
            }
            seen.renewals += 1;
            let is_old = now.saturating_sub(seen.since) >= self.lease;
            if is_old && seen.renewals >= RENEWALS_MIN {
                dead.push((id, counter));
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: ConsumerId = ConsumerId(2);

    fn second(nth: u64) -> Duration {
        Duration::from_secs(nth)
    }

    fn observer() -> Observer {
        Observer::new(second(10), second(7))
    }

    #[test]
    fn a_counter_that_stands_still_for_a_lease_is_a_death() {
        let mut observer = observer();
        for now in (0..10).step_by(2) {
            assert_eq!(observer.answered(second(now), &[(OTHER, 5)]), []);
        }
        assert_eq!(observer.answered(second(10), &[(OTHER, 5)]), [(OTHER, 5)]);
    }

    #[test]
    fn any_change_begins_anew() {
        let mut observer = observer();
        for now in (0..100).step_by(2) {
            assert_eq!(observer.answered(second(now), &[(OTHER, now / 8)]), []);
        }
        assert_eq!(observer.answered(second(100), &[(OTHER, 1)]), [], "down is a change, too");
    }

    #[test]
    fn a_stopped_observer_counts_its_own_renewals() {
        let mut observer = observer();
        observer.answered(second(0), &[(OTHER, 5)]);
        assert_eq!(observer.answered(second(60), &[(OTHER, 5)]), [], "both may have been stopped");
    }

    #[test]
    fn after_an_outage_of_its_own_it_waits() {
        let mut observer = observer();
        observer.failed(second(0));
        for now in (2..26).step_by(2) {
            assert_eq!(observer.answered(second(now), &[(OTHER, 5)]), [], "{now}");
        }
        assert_eq!(observer.answered(second(26), &[(OTHER, 5)]), [(OTHER, 5)]);
    }
}
