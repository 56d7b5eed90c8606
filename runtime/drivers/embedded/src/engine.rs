//! The thread that writes: each turn is one transaction for everything that was asked for since the last one, and for
//! the consumers that wait.
//!
//! A turn: look that the file is still there → take the fair lock → begin → acts in the order they came → takes → commit →
//! ring → answer. When one act fails the transaction is rolled back and each act gets one of its own, so that nobody pays
//! for another's failure; a lock that can't be had fails them all. Between turns the thread sleeps until something is
//! asked, the bell rings, or a message is due. A process that consumes looks for dead consumers once a second.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use rwork_protocol::service::Error;

use crate::acts::take::{self, NextWork, Take};
use crate::acts::{Ended, Job, Turn, result, session};
use crate::bell::Rings;
use crate::consumer_state::Consumers;
use crate::error::{self, Failure};
use crate::inbox::Inbox;
use crate::opening::{Opened, Opener};
use crate::reaper::Reaper;
use crate::schema;

/// Acts in one transaction. More would make other processes wait longer, and gains nothing.
const JOBS_MAX: usize = 64;
/// Time for which a waiting consumer trusts the bell before it looks by itself, and interval at which a process that
/// consumes looks for dead consumers.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two sweeps while expired results are left.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// A folder's files are not deleted in one step: the new file is made when the old ones are gone.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

pub(crate) type Jobs = Inbox<Box<dyn Job>>;

/// Everything the thread owns.
#[derive(Debug)]
pub(crate) struct Engine {
    file: Opened,
    opener: Opener,
    inbox: Arc<Jobs>,
    consumers: Consumers,
    reaper: Reaper,
    /// Why the file that was deleted could not be made anew.
    lost: Option<String>,
    look_at: Instant,
    sweep_at: Instant,
    receipt: u64,
}

impl Engine {
    pub(crate) fn new(file: Opened, opener: Opener) -> Self {
        Self {
            file,
            inbox: Arc::clone(&opener.writes),
            reaper: Reaper::new(opener.files.consumers.clone()),
            opener,
            consumers: Consumers::default(),
            lost: None,
            look_at: Instant::now(),
            sweep_at: Instant::now(),
            receipt: 0,
        }
    }

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
            self.consumers.sweep();
            self.follow_file();
            deadline = self.step(woken.items);
        }
    }

    /// Does what was asked and what is due; returns when to wake at the latest.
    fn step(&mut self, mut jobs: Vec<Box<dyn Job>>) -> Option<Instant> {
        let mut calm = true;
        if !jobs.is_empty() || self.next_work() == NextWork::Now {
            jobs.extend(self.takes());
            calm = self.perform(jobs);
        }
        self.reap();
        self.sweep();
        let wake = match self.next_work() {
            // After a failure the same would happen again at once.
            NextWork::Now if calm => Some(Duration::ZERO),
            NextWork::Until(time) => Some(time.since(self.opener.options.clock.now()).min(LOOK_INTERVAL)),
            _ => None,
        };
        let chores = [self.look_at, self.sweep_at].into_iter().filter(|_| !self.consumers.is_empty());
        wake.map(|wait| Instant::now() + wait).into_iter().chain(chores).min()
    }

    fn takes(&self) -> Vec<Box<dyn Job>> {
        let take = |(owner, room, _)| Box::new(Take::new(owner, room)) as Box<dyn Job>;
        self.consumers.waiting().map(take).collect()
    }

    fn next_work(&self) -> NextWork {
        if self.consumers.waiting().next().is_none() {
            return NextWork::Nothing;
        }
        let now = self.opener.options.clock.now();
        take::look(&self.file.db, &self.consumers, now).unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to look for messages");
            // A turn of its own shows what is wrong, to whom it concerns.
            NextWork::Now
        })
    }

    /// Opens the path again when the file is not there any more.
    fn follow_file(&mut self) {
        // One that can't be looked at is there all the same.
        if self.opener.files.is_still(self.file.id).unwrap_or(true) {
            return self.follow_log();
        }
        let url = &self.opener.url;
        if self.lost.is_none() {
            tracing::error!(%url, "the database file was deleted or replaced while it was in use: all that was in it is lost");
        }
        self.consumers.forget(|| error::moved(url, None));
        schema::leave(&self.file.db);
        thread::sleep(SETTLE_PAUSE);
        let opened = self.opener.open(self.file.log);
        self.lost = opened.and_then(|file| self.go_on(file)).err().map(|error| error::one_line(&error));
    }

    /// Opens the path again when SQLite's log beside it is not the one that our connections have: others would not see what
    /// we write there, nor we what they write.
    fn follow_log(&mut self) {
        let (files, file) = (&self.opener.files, &self.file);
        if files.is_still_log(file.log, file.index).unwrap_or(true) {
            self.lost = None;
            return;
        }
        let url = &self.opener.url;
        tracing::error!(%url, "the log beside the database (`-wal`, `-shm`) was deleted or replaced while it was in use: what was in it may be lost");
        if !self.opener.take_back() {
            self.lost = Some("a reader still has its log, which was deleted: trying again".to_owned());
            return;
        }
        schema::leave(&self.file.db);
        let anew = Connection::open_in_memory()
            .map_err(|error| Failure::from(error).explain(url, "open the database"))
            .and_then(|nothing| {
                self.file.db = nothing;
                self.opener.open(None)
            })
            .and_then(|file| self.go_on(file));
        // Until it can be opened nothing is done, and whoever asks is told.
        self.lost = anew.err().map(|error| error::one_line(&error));
    }

    fn go_on(&mut self, file: Opened) -> Result<(), Error> {
        let url = &self.opener.url;
        self.opener.hand_over().map_err(|error| Failure::from(error).explain(url, "open the database"))?;
        self.file = file;
        tracing::warn!(%url, "going on with the file that is there now");
        Ok(())
    }

    /// Runs the jobs and answers each; false when one failed.
    fn perform(&mut self, jobs: Vec<Box<dyn Job>>) -> bool {
        if let Some(why) = &self.lost {
            let why = why.clone();
            return self.refuse(jobs, |engine| Ended::Refused(error::moved(&engine.opener.url, Some(&why))));
        }
        self.mind_space();
        let mut jobs = self.refuse_growth(jobs);
        match self.attempt(&mut jobs) {
            Ok(()) => {
                for job in jobs {
                    job.finish(Ok(()), &mut self.consumers, &self.opener.url);
                }
                true
            }
            Err(Failure::Busy { holder, patience }) => {
                self.refuse(jobs, |_| Ended::Failed(Failure::Busy { holder: holder.clone(), patience }))
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

    fn refuse(&mut self, jobs: Vec<Box<dyn Job>>, why: impl Fn(&Self) -> Ended) -> bool {
        for job in jobs {
            let ended = why(self);
            job.finish(Err(ended), &mut self.consumers, &self.opener.url);
        }
        false
    }

    fn alone(&mut self, job: Box<dyn Job>) -> bool {
        let mut jobs = [job];
        let outcome = self.attempt(&mut jobs);
        let [job] = jobs;
        match outcome {
            Ok(()) => {
                job.finish(Ok(()), &mut self.consumers, &self.opener.url);
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
        job.finish(outcome.map_err(Ended::Failed), &mut self.consumers, &self.opener.url);
        calm
    }

    fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        self.transact(|turn| jobs.iter_mut().try_for_each(|job| job.run(turn)))
    }

    fn transact<T>(&mut self, act: impl FnOnce(&mut Turn<'_>) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let file = &self.file;
        let held = file.lock.hold()?;
        let transaction = Transaction::new_unchecked(&file.db, TransactionBehavior::Immediate)
            .map_err(|error| file.lock.explain(error))?;
        let mut turn = Turn {
            db: &file.db,
            now: self.opener.options.clock.now(),
            consumers: &self.consumers,
            file: file.id,
            rings: Rings::default(),
            receipt: &mut self.receipt,
        };
        let answer = act(&mut turn)?;
        let rings = turn.rings;
        transaction.commit()?;
        drop(held);
        file.bells.ring(rings);
        Ok(answer)
    }

    fn mind_space(&mut self) {
        let Opened { db, lock, space, .. } = &mut self.file;
        if space.may_recover()
            && let Ok(_held) = lock.hold()
        {
            space.recover(db);
        }
        space.relax(db);
    }

    fn relieve(&mut self) -> Result<(), Failure> {
        let Opened { db, lock, space, .. } = &mut self.file;
        let _held = lock.hold()?;
        space.relieve(db);
        Ok(())
    }

    /// While the reserve is gone only what drains may go on.
    fn refuse_growth(&mut self, jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if jobs.iter().all(|job| job.drains()) || !self.file.space.is_short() {
            return jobs;
        }
        let (drains, grows): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.drains());
        for job in grows {
            let refusal =
                error::full(&self.opener.url, "no space left on its disk, the rest is kept for draining");
            job.finish(Err(Ended::Refused(refusal)), &mut self.consumers, &self.opener.url);
        }
        drains
    }

    /// Frees what dead consumers held: once a second, and when a consumer starts.
    fn reap(&mut self) {
        let joined = std::mem::take(&mut self.consumers.joined);
        if self.consumers.is_empty() || !joined && Instant::now() < self.look_at || self.lost.is_some() {
            return;
        }
        self.look_at = Instant::now() + LOOK_INTERVAL;
        if let Err(failure) = self.free_dead(joined) {
            tracing::warn!(error = %failure, "failed to free what dead consumers held: trying again");
        }
    }

    fn free_dead(&mut self, clean: bool) -> Result<(), Failure> {
        if clean {
            self.reaper.clean(&self.file.db)?;
        }
        let dead = self.reaper.find(&self.file.db, &self.consumers, Instant::now())?;
        if dead.is_empty() {
            return Ok(());
        }
        self.transact(|turn| session::reap(turn, &dead))?;
        tracing::info!(consumers = dead.len(), "freed what dead consumers held");
        dead.iter().for_each(|dead| dead.remove());
        Ok(())
    }

    /// Deletes some expired results, in processes that consume.
    fn sweep(&mut self) {
        if self.consumers.is_empty() || Instant::now() < self.sweep_at || self.lost.is_some() {
            return;
        }
        let interval = self.opener.options.sweep_interval;
        let pause = match self.transact(|turn| result::sweep(turn)) {
            Ok(result::SWEEP_ROWS) => SWEEP_PAUSE.min(interval),
            Ok(_) => interval,
            Err(error) => {
                tracing::warn!(%error, "failed to delete expired results");
                interval
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
