//! One consumer of the broker and how it stands: its line, its renewals, its end.
//!
//! Owns the consumer and the numbers of its batches. Never decides how a delivery ends, and never ends the consumer: only
//! the store's word does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rwork_broker::{Batch, Committed, Consumer, Delivery, Error, Ownership, Receipt, Resumed, Room};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::outage::{Outage, chain};
use crate::watched::Watched;

/// Standing of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its line is whole, as far as is known.
    Stands,
    /// Its line was lost, or the store has something to say: it must be resumed.
    Troubled,
    /// The consumer has ended.
    Over(Over),
}

/// Why a consumer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Others know it as dead: what it held is theirs.
    Dead,
    /// The store lost everything: nobody has what it held.
    Forgotten,
}

/// A consumer. Shared by whoever receives, commits and renews.
#[derive(Debug)]
pub(crate) struct Session {
    consumer: Box<dyn Consumer>,
    clock: Arc<dyn Clock>,
    /// Ground on which its deliveries are ours.
    ownership: Ownership,
    standing: Watched<Standing>,
    /// Cause of the trouble, until it is logged. The lock is held for one move.
    trouble: Mutex<Option<Error>>,
    /// When the last renewal that was answered had been asked for, by the clock that counts suspends.
    renewed: Watched<Duration>,
    /// Renewals in a row without an answer.
    unanswered: Watched<u32>,
    /// Why the last one of them had none, until it is told.
    silence: Mutex<Option<Error>>,
    /// Rung when a renewal is wanted at once.
    wanted: Notify,
    /// Number of the last batch.
    number: AtomicU64,
}

impl Session {
    /// `asked`: when the consumer was asked for, by [`Clock::boot`]; that counts as its first renewal.
    pub(crate) fn new(
        consumer: Box<dyn Consumer>,
        clock: Arc<dyn Clock>,
        ownership: Ownership,
        asked: Duration,
    ) -> Self {
        Self {
            consumer,
            clock,
            ownership,
            standing: Watched::new(Standing::Stands),
            trouble: Mutex::default(),
            renewed: Watched::new(asked),
            unanswered: Watched::new(0),
            silence: Mutex::default(),
            wanted: Notify::new(),
            number: AtomicU64::new(0),
        }
    }

    /// Its standing now.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.get()
    }

    pub(crate) fn over(&self) -> Option<Over> {
        match self.standing() {
            Standing::Over(over) => Some(over),
            Standing::Stands | Standing::Troubled => None,
        }
    }

    /// Resolves when the line is whole, or with the end. Cancel safe.
    pub(crate) async fn until_whole(&self) -> Result<(), Over> {
        match self.until(|standing| standing != Standing::Troubled).await {
            Standing::Over(over) => Err(over),
            Standing::Stands | Standing::Troubled => Ok(()),
        }
    }

    /// Resolves when the consumer must be resumed, or has ended. Cancel safe.
    pub(crate) async fn until_troubled(&self) {
        self.until(|standing| standing != Standing::Stands).await;
    }

    async fn until(&self, wanted: impl Fn(Standing) -> bool) -> Standing {
        self.standing.until(wanted).await
    }

    /// Its line was lost, or the store refuses it: whoever receives resumes it. `error` is told then.
    pub(crate) fn trouble(&self, error: Error) {
        let begins = self.standing.update(|now| (now == Standing::Stands).then_some(Standing::Troubled));
        if begins {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    pub(crate) fn take_trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks the store what stands, on a new line.
    pub(crate) async fn resume(&self) -> Result<Resumed, Error> {
        let asked = self.clock.boot();
        let resumed = self.consumer.resume().await?;
        let standing = match &resumed {
            Resumed::Stands { .. } => {
                self.note_renewed(asked);
                Standing::Stands
            }
            Resumed::Dead => Standing::Over(Over::Dead),
            Resumed::Forgotten => Standing::Over(Over::Forgotten),
        };
        self.standing.update(|_| Some(standing));
        Ok(resumed)
    }

    /// Waits for messages; `None`: the line was lost. A queue that can't be read is waited for.
    ///
    /// # Cancel safety
    /// As [`Consumer::receive`].
    pub(crate) async fn receive(&self, room: Room, mut outage: Outage) -> Option<Vec<Delivery>> {
        loop {
            match self.consumer.receive(room).await {
                Ok(deliveries) => {
                    outage.over();
                    return Some(deliveries);
                }
                Err(error) if leaves_whole(&error) => sleep(outage.failed(&error)).await,
                Err(error) => {
                    self.trouble(error);
                    return None;
                }
            }
        }
    }

    /// The number of a new batch.
    pub(crate) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Commits a batch, again and again until it is answered.
    ///
    /// # Errors
    /// [`Unanswered::Over`] when the consumer ended first; [`Unanswered::Full`] when the store has no room for it now;
    /// [`Unanswered::Refused`] when no such batch can be committed.
    pub(crate) async fn commit(
        &self,
        batch: &Batch,
        outage: &mut Outage,
    ) -> Result<Vec<Committed>, Unanswered> {
        let mut is_in_doubt = false;
        loop {
            match self.until_whole().await {
                Ok(()) => {}
                // The store knows what became of it: an early ack that was done, or what no receipt fences, must not be
                // taken for lost, or sent again by another number.
                Err(Over::Dead) if is_in_doubt && self.ownership != Ownership::Connection => {
                    return Ok(self.last_word(batch, outage).await);
                }
                Err(_) => return Err(Unanswered::Over),
            }
            match self.consumer.commit(batch).await {
                Ok(answers) => {
                    outage.over();
                    return Ok(answers);
                }
                Err(error @ Error::Full { .. }) => return Err(Unanswered::Full(error)),
                Err(error) if is_passing(&error) => {
                    is_in_doubt = true;
                    sleep(outage.failed(&error)).await;
                }
                Err(error) if leaves_whole(&error) => return Err(Unanswered::Refused(error)),
                Err(error) => {
                    is_in_doubt = true;
                    self.trouble(error);
                }
            }
        }
    }

    /// Answers to a batch of a consumer that is dead.
    async fn last_word(&self, batch: &Batch, outage: &mut Outage) -> Vec<Committed> {
        loop {
            match self.consumer.commit(batch).await {
                Ok(answers) => {
                    outage.over();
                    return answers;
                }
                // A copy of this process has this batch, too.
                Err(Error::LeaseLost { .. }) => return vec![Committed::Lost; batch.commits.len()],
                Err(error) => {
                    sleep(outage.failed(&error)).await;
                    // A new line, whatever it says; the next commit shows whether there is one.
                    let _ = self.consumer.resume().await;
                }
            }
        }
    }

    /// Renews; true when it was answered well.
    pub(crate) async fn renew(&self) -> bool {
        let asked = self.clock.boot();
        match self.consumer.renew().await {
            Ok(true) => {
                self.note_renewed(asked);
                true
            }
            Ok(false) => {
                self.trouble(Error::Doubtful);
                false
            }
            Err(error @ Error::LeaseLost { .. }) => {
                self.trouble(error);
                false
            }
            // Without a lease a renewal is a look at the connection.
            Err(error) if self.ownership.lease().is_none() && !leaves_whole(&error) => {
                self.trouble(error);
                false
            }
            Err(error) => {
                *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                self.unanswered.update(|count| Some(count.saturating_add(1)));
                false
            }
        }
    }

    /// Says when renewals have no answer, and when they have one again: a worker that is full asks for nothing else, and would
    /// be silent while its broker is away.
    pub(crate) async fn tell_of_silence(&self, mut outage: Outage) {
        let mut told = 0;
        loop {
            let count = self.unanswered.until(|count| count != told).await;
            let silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner).take();
            match silence {
                Some(error) if count > 0 => drop(outage.failed(&error)),
                _ if count == 0 => outage.over(),
                _ => {}
            }
            told = count;
        }
    }

    fn note_renewed(&self, asked: Duration) {
        self.unanswered.update(|count| (count > 0).then_some(0));
        self.renewed.update(|renewed| (asked > renewed).then_some(asked));
    }

    /// True if a renewal that was asked for within the last lease has been answered: nobody can have reaped us.
    pub(crate) fn is_fresh(&self) -> bool {
        self.rest_of_lease().is_none_or(|rest| !rest.is_zero())
    }

    /// Time for which nobody can reap us yet; `None` where there are no leases.
    fn rest_of_lease(&self) -> Option<Duration> {
        let renewed = self.renewed.get();
        self.ownership.lease().map(|lease| lease.saturating_sub(self.clock.boot().saturating_sub(renewed)))
    }

    /// Moment until which nobody can have reaped us; `None` where there are no leases. A renewal comes first where the last
    /// one is too old.
    ///
    /// # Errors
    /// When the consumer has ended.
    pub(crate) async fn safe_until(&self) -> Result<Option<Instant>, Over> {
        self.until_fresh().await?;
        Ok(self.rest_of_lease().map(|rest| Instant::now() + rest))
    }

    /// Resolves when it is fresh; a renewal comes first where it is not.
    ///
    /// # Errors
    /// When the consumer has ended.
    pub(crate) async fn until_fresh(&self) -> Result<(), Over> {
        loop {
            let renewed = self.renewed.get();
            if let Some(over) = self.over() {
                return Err(over);
            }
            if self.is_fresh() {
                return Ok(());
            }
            self.wanted.notify_one();
            tokio::select! {
                biased;
                _ = self.renewed.until(|now| now != renewed) => {}
                _ = self.until(|standing| matches!(standing, Standing::Over(_))) => {}
            }
        }
    }

    /// Resolves when a renewal is wanted before its time. Cancel safe.
    pub(crate) async fn renewal_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Gives back whatever is held; `started` may have begun. Failures that pass are waited out.
    pub(crate) async fn close(&self, started: &[Receipt], mut outage: Outage) {
        loop {
            if self.until_whole().await.is_err() {
                return;
            }
            match self.consumer.close(started).await {
                Ok(()) => return,
                Err(error) if is_passing(&error) => sleep(outage.failed(&error)).await,
                Err(error) if leaves_whole(&error) => {
                    tracing::warn!(error = %chain(&error), "failed to close the consumer: others will find it dead");
                    return;
                }
                Err(error) => self.trouble(error),
            }
        }
    }
}

/// Why a batch has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The consumer ended.
    Over,
    /// Nothing was changed: there is no room.
    Full(Error),
    /// Nothing was changed, and never will be by such a batch.
    Refused(Error),
}

/// True if the line is whole, whatever could not be done.
fn leaves_whole(error: &Error) -> bool {
    matches!(
        error,
        Error::Full { .. }
            | Error::Act { .. }
            | Error::TooLarge { .. }
            | Error::Unsupported { .. }
            | Error::Refused { .. }
    )
}

/// True if the same call may succeed after a pause.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Full { .. } | Error::Act { retryable: true, .. })
}
