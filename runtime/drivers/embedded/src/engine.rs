//! The thread that writes: each turn is one transaction for everything that was asked for since the last one, and for
//! the consumers that wait.
//!
//! A turn: take the fair lock → begin → acts in the order they came → leases → commit → ring → answer. When one act
//! fails the transaction is rolled back and each act gets one of its own, so that nobody pays for another's failure.
//! Between turns the thread sleeps until something is asked, the bell rings, or a message or lease is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use rwork_protocol::Timestamp;
use rwork_protocol::service::RedactedUrl;

use crate::acts::lease::{self, Lease, Outlook};
use crate::acts::{Ended, Job, Turn, result};
use crate::bell::{Bells, Rings};
use crate::error::{self, Failure};
use crate::files::FairLock;
use crate::inbox::Inbox;
use crate::options::Clock;
use crate::seat::Seats;
use crate::space::Space;

/// Acts in one transaction. More would make other processes wait longer, and gains nothing.
const JOBS_MAX: usize = 64;
/// How long a waiting consumer trusts the bell before it looks by itself.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two sweeps while expired results are left.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

pub(crate) type Jobs = Inbox<Box<dyn Job>>;

/// Everything the thread owns.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) db: Connection,
    pub(crate) lock: FairLock,
    pub(crate) bells: Bells,
    pub(crate) space: Space,
    pub(crate) clock: Clock,
    pub(crate) url: RedactedUrl,
    pub(crate) inbox: Arc<Jobs>,
    pub(crate) steady: Steady,
    pub(crate) sweep_interval: Duration,
    pub(crate) sweep_at: Instant,
    pub(crate) seats: Seats,
    pub(crate) receipt: u64,
}

impl Engine {
    /// Works until the inbox is closed and empty.
    pub(crate) fn run(mut self) {
        // Whatever ends this thread, callers must not wait for it.
        let _abandon = Abandon(Arc::clone(&self.inbox));
        let mut deadline = None;
        loop {
            let woken = self.inbox.wait(deadline, JOBS_MAX);
            if woken.closed && woken.items.is_empty() {
                return;
            }
            self.seats.sweep();
            deadline = self.step(woken.items);
        }
    }

    /// Does what was asked and what is due; returns when to wake at the latest.
    fn step(&mut self, mut jobs: Vec<Box<dyn Job>>) -> Option<Instant> {
        let mut calm = true;
        if !jobs.is_empty() || self.outlook() == Outlook::Now {
            jobs.extend(self.leases());
            calm = self.perform(jobs);
        }
        self.sweep();
        let wake = match self.outlook() {
            // After a failure the same would happen again at once.
            Outlook::Now if calm => Some(Duration::ZERO),
            Outlook::Until(time) => Some(time.since(self.clock.now()).min(LOOK_INTERVAL)),
            _ if self.seats.waiting().next().is_some() => Some(LOOK_INTERVAL),
            _ => None,
        };
        let sweep = (!self.seats.is_empty()).then_some(self.sweep_at);
        wake.map(|wait| Instant::now() + wait).into_iter().chain(sweep).min()
    }

    fn leases(&self) -> Vec<Box<dyn Job>> {
        let lease = |(owner, wanted, _)| Box::new(Lease::new(owner, wanted)) as Box<dyn Job>;
        self.seats.waiting().map(lease).collect()
    }

    fn outlook(&mut self) -> Outlook {
        if self.seats.waiting().next().is_none() {
            return Outlook::Nothing;
        }
        let now = self.clock.now();
        let reap = self.steady.may_reap(now);
        lease::look(&self.db, &self.seats, now, reap).unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to look for messages");
            // A turn of its own shows what is wrong, to whom it concerns.
            Outlook::Now
        })
    }

    /// Runs the jobs and answers each; false when one failed.
    fn perform(&mut self, jobs: Vec<Box<dyn Job>>) -> bool {
        self.mind_space();
        let mut jobs = self.refuse_growth(jobs);
        match self.attempt(&mut jobs) {
            Ok(()) => {
                for job in jobs {
                    job.finish(Ok(()), &mut self.seats, &self.url);
                }
                true
            }
            Err(failure) => match <[_; 1]>::try_from(jobs) {
                Ok([job]) => self.rescue(job, failure),
                Err(jobs) => {
                    let mut calm = true;
                    for job in jobs {
                        calm &= self.alone(job);
                    }
                    calm
                }
            },
        }
    }

    fn alone(&mut self, job: Box<dyn Job>) -> bool {
        let mut jobs = [job];
        let outcome = self.attempt(&mut jobs);
        let [job] = jobs;
        match outcome {
            Ok(()) => {
                job.finish(Ok(()), &mut self.seats, &self.url);
                true
            }
            Err(failure) => self.rescue(job, failure),
        }
    }

    /// The last try of a job that failed by itself: with the reserve, if it is one that drains.
    fn rescue(&mut self, job: Box<dyn Job>, failure: Failure) -> bool {
        let mut jobs = [job];
        let outcome = if failure.is_full() && jobs.iter().all(|job| job.drains()) {
            self.relieve().and_then(|()| self.attempt(&mut jobs))
        } else {
            Err(failure)
        };
        let calm = outcome.is_ok();
        let [job] = jobs;
        job.finish(outcome.map_err(Ended::Failed), &mut self.seats, &self.url);
        calm
    }

    fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        self.transact(|turn| jobs.iter_mut().try_for_each(|job| job.run(turn)))
    }

    fn transact<T>(&mut self, act: impl FnOnce(&mut Turn<'_>) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let now = self.clock.now();
        let reap = self.steady.may_reap(now);
        let held = self.lock.hold()?;
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        let mut turn = Turn {
            db: &self.db,
            now,
            reap,
            seats: &self.seats,
            rings: Rings::default(),
            receipt: &mut self.receipt,
        };
        let answer = act(&mut turn)?;
        let rings = turn.rings;
        transaction.commit()?;
        drop(held);
        self.bells.ring(rings);
        Ok(answer)
    }

    fn mind_space(&mut self) {
        if self.space.may_recover()
            && let Ok(_held) = self.lock.hold()
        {
            self.space.recover(&self.db);
        }
        self.space.relax(&self.db);
    }

    fn relieve(&mut self) -> Result<(), Failure> {
        let _held = self.lock.hold()?;
        self.space.relieve(&self.db);
        Ok(())
    }

    /// While the reserve is gone only what drains may go on.
    fn refuse_growth(&mut self, jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if jobs.iter().all(|job| job.drains()) || !self.space.is_short() {
            return jobs;
        }
        let (drains, grows): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.drains());
        for job in grows {
            let refusal = error::full(&self.url, "no space left on its disk, the rest is kept for draining");
            job.finish(Err(Ended::NoRoom(refusal)), &mut self.seats, &self.url);
        }
        drains
    }

    /// Deletes some expired results, in processes that consume.
    fn sweep(&mut self) {
        if self.seats.is_empty() || Instant::now() < self.sweep_at {
            return;
        }
        let pause = match self.transact(|turn| result::sweep(turn)) {
            Ok(result::SWEEP_ROWS) => SWEEP_PAUSE.min(self.sweep_interval),
            Ok(_) => self.sweep_interval,
            Err(error) => {
                tracing::warn!(%error, "failed to delete expired results");
                self.sweep_interval
            }
        };
        self.sweep_at = Instant::now() + pause;
    }
}

struct Abandon(Arc<Jobs>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Compares the wall clock with the monotonic one. After the wall clock leapt ahead (set by hand, or the machine slept)
/// all leases look expired; living workers get one lease's time to renew before anybody ends their sessions.
#[derive(Debug)]
pub(crate) struct Steady {
    lease: Duration,
    last: Option<(Instant, Timestamp)>,
    patience: Option<Instant>,
}

impl Steady {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, last: None, patience: None }
    }

    fn may_reap(&mut self, wall: Timestamp) -> bool {
        self.observe(Instant::now(), wall)
    }

    fn observe(&mut self, steady: Instant, wall: Timestamp) -> bool {
        if let Some((steady_then, wall_then)) = self.last.replace((steady, wall))
            && wall.since(wall_then) > steady.duration_since(steady_then) + self.lease / 2
        {
            self.patience = Some(steady + self.lease);
        }
        self.patience.is_none_or(|patience| steady >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_of_the_clock_gives_time_to_renew() {
        let lease = Duration::from_secs(5);
        let (start, wall) = (Instant::now(), Timestamp::from_millis(1_000_000));
        let mut steady = Steady::new(lease);
        let mut after = |steady_s: u64, wall_s: u64| {
            steady.observe(start + Duration::from_secs(steady_s), wall.plus(Duration::from_secs(wall_s)))
        };
        assert!(after(0, 0));
        assert!(after(60, 60), "idle for a minute is no leap");
        assert!(after(61, 63), "small steps are corrections");
        assert!(!after(62, 3600), "an hour's leap");
        assert!(!after(66, 3604));
        assert!(after(67, 3605), "one lease later");
        assert!(after(68, 0), "back is no leap ahead");
    }
}
