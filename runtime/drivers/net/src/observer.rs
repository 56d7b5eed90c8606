//! Death is observed, not computed: a consumer is dead when its counter stood still for one lease of our own clock, while
//! our own renewals were answered.
//!
//! So a server that pauses, restarts or is out of reach makes nobody dead, nor does its clock, nor our own sleep.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::process;

/// Renewals of ours that must have been answered while another's counter stood still.
const ANSWERED_MIN: u32 = 4;

/// Another consumer, as the server tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub consumer: String,
    /// As the server writes it. Negative: it was reaped.
    pub counter: String,
    /// Process that it is part of, as [`own_process`](crate::own_process) says; empty where that is not known.
    pub process: String,
}

/// What one consumer sees of the others.
#[derive(Debug)]
pub struct Observer {
    lease: Duration,
    /// How long after an outage of our line nobody is counted: others' lines were lost as well, and take as long.
    patience: Duration,
    seen: HashMap<String, Sighting>,
    answered: Option<Instant>,
    has_failed: bool,
    /// Nobody is counted before.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Sighting {
    counter: String,
    since: Instant,
    /// Renewals of ours since then.
    answered: u32,
}

impl Observer {
    /// `dial_deadline`: how long a new connection may take.
    pub fn new(lease: Duration, dial_deadline: Duration) -> Self {
        // While something is held a pause between two attempts is at most a fifth of a lease.
        let patience = lease + lease / 5 + dial_deadline;
        Self { lease, patience, seen: HashMap::new(), answered: None, has_failed: false, not_before: None }
    }

    /// A renewal of ours failed.
    pub fn failed(&mut self) {
        self.has_failed = true;
        self.seen.clear();
    }

    /// A renewal of ours was answered, and told of others that look old. Returns the dead.
    pub fn answered(&mut self, now: Instant, others: impl Iterator<Item = Neighbour>) -> Vec<Neighbour> {
        // We or the server have slept: what was seen before says nothing. Longer than a lease it is an outage, too: the
        // answers that nobody waited for.
        let gap = self.answered.replace(now).map_or(Duration::ZERO, |before| now.duration_since(before));
        if std::mem::take(&mut self.has_failed) || gap > self.lease {
            self.not_before = Some(now + self.patience);
        }
        if gap > self.lease / 2 {
            self.seen.clear();
        }
        let mut before = std::mem::take(&mut self.seen);
        let is_counted = self.not_before.is_none_or(|not_before| now >= not_before);
        others
            .filter(|other| {
                let sighting = before.remove(&other.consumer).filter(|seen| seen.counter == other.counter);
                other.counter.starts_with('-')
                    || process::is_gone(&other.process)
                    || (is_counted && self.stood_still(other, sighting, now))
            })
            .collect()
    }

    fn stood_still(&mut self, other: &Neighbour, before: Option<Sighting>, now: Instant) -> bool {
        let new = || Sighting { counter: other.counter.clone(), since: now, answered: 0 };
        let sighting =
            before.map_or_else(new, |seen| Sighting { answered: seen.answered.saturating_add(1), ..seen });
        let is_dead = sighting.answered >= ANSWERED_MIN && now.duration_since(sighting.since) >= self.lease;
        self.seen.insert(other.consumer.clone(), sighting);
        is_dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn sees(observer: &mut Observer, start: Instant, at: u64, counter: &str) -> bool {
        let other = Neighbour { consumer: "a".into(), counter: counter.into(), process: String::new() };
        !observer.answered(start + Duration::from_secs(at), [other].into_iter()).is_empty()
    }

    #[test]
    fn a_counter_that_stands_still_for_a_lease_is_a_death() {
        let (mut observer, start) = (Observer::new(LEASE, Duration::from_secs(5)), Instant::now());
        for at in [0, 2, 4, 6, 8] {
            assert!(!sees(&mut observer, start, at, "7"), "{at}");
        }
        assert!(sees(&mut observer, start, 10, "7"));
    }

    #[test]
    fn any_change_begins_anew() {
        let (mut observer, start) = (Observer::new(LEASE, Duration::from_secs(5)), Instant::now());
        for (at, counter) in [(0, "7"), (4, "7"), (8, "6"), (12, "6"), (16, "6")] {
            assert!(!sees(&mut observer, start, at, counter), "{at}");
        }
    }

    #[test]
    fn who_slept_begins_anew() {
        let (mut observer, start) = (Observer::new(LEASE, Duration::from_secs(5)), Instant::now());
        for at in [0, 2, 4, 6, 8, 14, 16, 18, 20, 22] {
            assert!(!sees(&mut observer, start, at, "7"), "{at}");
        }
        assert!(sees(&mut observer, start, 24, "7"));
    }

    #[test]
    fn after_an_outage_nobody_is_counted_for_a_while() {
        let (mut observer, start) = (Observer::new(LEASE, Duration::from_secs(5)), Instant::now());
        for at in [0, 2, 4, 6, 8] {
            assert!(!sees(&mut observer, start, at, "7"));
        }
        observer.failed();
        // 17 s, and a lease from then.
        for at in (10..38).step_by(2) {
            assert!(!sees(&mut observer, start, at, "7"), "{at}");
        }
        assert!(sees(&mut observer, start, 38, "7"));
    }

    #[test]
    fn who_was_reaped_is_gone_on_with_at_once() {
        let (mut observer, start) = (Observer::new(LEASE, Duration::from_secs(5)), Instant::now());
        assert!(sees(&mut observer, start, 0, "-7"));
    }
}
