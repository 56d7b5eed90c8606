//! The one place that writes to the outside: a batch at a time, each commit of it all or nothing.
//!
//! While a batch commits the next one gathers, so that the cost of a round trip is paid per batch. Where results are kept
//! elsewhere, records go before the rest. Nothing is given up because a server is slow or away: it waits, and with it,
//! through the bounded channel, the whole worker. A batch without an answer is repeated by its number, and changes nothing
//! the second time. What can never be done is told to its task alone.

use std::collections::VecDeque;
use std::sync::Arc;

use rwork_backend::{Store, Stored};
use rwork_broker::{
    BATCH_BYTES_MAX, Batch, Commit, Committed, Disposition, Ending as Fate, Error, Part, Refusal,
};
use rwork_protocol::{Exception, State};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::commit::{Became, Effects, Fenced, TaskCommit};
use crate::ending::Ending;
use crate::outage::{Outage, chain};
use crate::session::{Over, Session, Unanswered};
use crate::shared::Shared;
use crate::telling::tell;

/// The consumer by which commits go, when there is one.
pub(crate) type Current = watch::Receiver<Option<Arc<Session>>>;

#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<TaskCommit>,
    current: Current,
    storing: Outage,
    committing: Outage,
    /// Commits that wait for room in the store, while those that fit pass them.
    postponed: VecDeque<TaskCommit>,
    /// Number of them that is in [`Shared::postponed`].
    counted: usize,
    /// When they are tried again.
    try_again: Instant,
    full: Outage,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<TaskCommit>, current: Current) -> Self {
        Self {
            storing: Outage::of_backend("store results", shared.backoff()),
            committing: Outage::of_broker("commit", shared.backoff()),
            postponed: VecDeque::new(),
            counted: 0,
            try_again: Instant::now(),
            full: Outage::of_broker("commit what the store has no room for", shared.backoff()),
            shared,
            inbox,
            current,
        }
    }

    /// Commits until every sender is gone and nothing is left.
    pub(crate) async fn run(mut self) {
        let most = self.shared.config.settle_batch_max;
        let mut waiting = VecDeque::with_capacity(most);
        while self.gather(&mut waiting, most).await {
            let from = if self.is_due() { &mut self.postponed } else { &mut waiting };
            let batch = next_batch(from, most);
            match self.commit(batch).await {
                Some((left, full)) => {
                    self.postponed.extend(left);
                    self.try_again = Instant::now() + self.full.failed(&full);
                }
                None if self.postponed.is_empty() => self.full.over(),
                None => {}
            }
            self.count_postponed();
        }
    }

    /// Waits for something to commit, and gathers what else is there; false: nothing will come.
    async fn gather(&mut self, waiting: &mut VecDeque<TaskCommit>, most: usize) -> bool {
        if waiting.is_empty() && !self.is_due() {
            let first = tokio::select! {
                biased;
                first = self.inbox.recv() => first,
                () = sleep_until(self.try_again), if !self.postponed.is_empty() => None,
            };
            match first {
                Some(first) => waiting.push_back(first),
                None if self.postponed.is_empty() => return false,
                None => sleep_until(self.try_again).await,
            }
        }
        while waiting.len() < most
            && let Ok(commit) = self.inbox.try_recv()
        {
            waiting.push_back(commit);
        }
        true
    }

    /// True when postponed commits are to be tried again, before others.
    fn is_due(&self) -> bool {
        !self.postponed.is_empty() && Instant::now() >= self.try_again
    }

    /// Lets the pipe know how many there are.
    fn count_postponed(&mut self) {
        let (now, before) =
            (self.postponed.len(), std::mem::replace(&mut self.counted, self.postponed.len()));
        self.shared.postponed.update(|all| (now != before).then(|| all.saturating_add(now) - before));
    }

    /// Sees every commit of a batch done, lost or refused, save those for which the store has no room now.
    async fn commit(&mut self, mut open: Vec<TaskCommit>) -> Option<(Vec<TaskCommit>, Error)> {
        while !open.is_empty() {
            let Some(session) = self.session(&mut open).await else {
                open.iter_mut().for_each(TaskCommit::lose);
                self.end(open);
                return None;
            };
            #[cfg(test)]
            let aside = crate::sim::mistakes::before_commit(&self.shared, &mut open).await;
            if self.store_elsewhere(&session, &mut open).await.is_none() {
                continue;
            }
            open = match self.commit_at_broker(&session, open).await {
                Left::Open(left) => left,
                Left::Full(left, _) if left.len() > 1 => match self.commit_one_by_one(&session, left).await {
                    Left::Open(left) => left,
                    Left::Full(left, error) => return Some((left, error)),
                },
                Left::Full(left, error) => return Some((left, error)),
            };
            #[cfg(test)]
            crate::sim::mistakes::after_commit(&self.shared, aside).await;
        }
        None
    }

    /// The consumer to commit by. Commits of one that has ended are given up, or lose their fence. `None`: there will be no
    /// other one.
    async fn session(&mut self, open: &mut [TaskCommit]) -> Option<Arc<Session>> {
        let lives = |session: &Arc<Session>| session.over().is_none();
        let session = self.current.wait_for(|now| now.as_ref().is_some_and(lives)).await.ok()?.clone()?;
        for commit in open {
            if let Some(earlier) = commit.session().filter(|of| !Arc::ptr_eq(of, &session)) {
                let over = earlier.over().unwrap_or(Over::Dead);
                commit.after_the_end(over);
            }
        }
        Some(session)
    }

    /// Stores the records that the broker does not. `None`: the consumer ended; commits are looked at again.
    async fn store_elsewhere(&mut self, session: &Session, open: &mut [TaskCommit]) -> Option<()> {
        if self.shared.commits_records() {
            return Some(());
        }
        while open.iter().any(|commit| !commit.effects.records.is_empty()) {
            let records = open.iter().flat_map(|commit| commit.effects.records.iter().cloned()).collect();
            match self.store(session, records).await? {
                Ok(Told::TooLate) => {}
                Ok(Told::All) => open.iter_mut().for_each(|commit| commit.effects.records.clear()),
                Err(error) if blames_content(&error) => self.store_one_by_one(session, open).await?,
                Err(error) => sleep(self.storing.failed(&error)).await,
            }
        }
        Some(())
    }

    /// One of them is to blame: each for itself, so that the others are not held up.
    async fn store_one_by_one(&mut self, session: &Session, open: &mut [TaskCommit]) -> Option<()> {
        for commit in open {
            while !commit.effects.records.is_empty() {
                match self.store(session, commit.effects.records.clone()).await? {
                    Ok(Told::TooLate) => {}
                    Ok(Told::All) => commit.effects.records.clear(),
                    Err(error) if blames_content(&error) => {
                        self.refuse(commit, &Refusal { part: Part::Record, why: chain(&error) });
                    }
                    Err(error) => sleep(self.storing.failed(&error)).await,
                }
            }
        }
        Some(())
    }

    /// Stores records once. What is no success may only be stored while nobody can have reaped us. `None`: the consumer
    /// ended.
    async fn store(&mut self, session: &Session, records: Vec<Store>) -> Option<Result<Told, Error>> {
        let is_final = records.iter().all(|store| store.record.status == State::Success);
        let moment = if is_final { None } else { session.safe_until().await.ok()? };
        let stored = self.shared.backend.store_before(records, moment).await;
        Some(stored.map(|stored| {
            self.storing.over();
            if stored.contains(&Stored::Late) { Told::TooLate } else { Told::All }
        }))
    }

    /// Commits what is left to be done at the broker. What is done is told; the rest is what is left.
    async fn commit_at_broker(&mut self, session: &Session, open: Vec<TaskCommit>) -> Left {
        let (empty, mut open): (Vec<_>, Vec<_>) = open.into_iter().partition(is_empty);
        self.end(empty);
        if open.is_empty() {
            return Left::Open(open);
        }
        open.iter_mut().for_each(TaskCommit::release_if_abandoned);
        let commits = open.iter_mut().map(at_broker).collect();
        let batch = Batch { number: session.next_number(), commits };
        let answer = session.commit(&batch, &mut self.committing).await;
        let part = likely(&batch);
        for (commit, Commit { records, publish, .. }) in open.iter_mut().zip(batch.commits) {
            commit.effects = Effects { records, follow_ups: publish };
        }
        match answer {
            Ok(answers) => Left::Open(self.note(open, answers)),
            // They are looked at again, with the next consumer.
            Err(Unanswered::Over) => Left::Open(open),
            Err(Unanswered::Full(error)) => Left::Full(open, error),
            Err(Unanswered::Refused(error)) if open.len() == 1 => {
                let refusal = Refusal { part, why: chain(&error) };
                Left::Open(self.note(open, vec![Committed::Refused(refusal)]))
            }
            Err(Unanswered::Refused(_)) => Box::pin(self.commit_one_by_one(session, open)).await,
        }
    }

    /// One of them keeps the others from being committed: each for itself.
    async fn commit_one_by_one(&mut self, session: &Session, open: Vec<TaskCommit>) -> Left {
        let (mut left, mut full) = (Vec::new(), None);
        for commit in open {
            match Box::pin(self.commit_at_broker(session, vec![commit])).await {
                Left::Open(mut one) => left.append(&mut one),
                Left::Full(mut one, error) => {
                    left.append(&mut one);
                    full = Some(error);
                }
            }
        }
        match full {
            Some(error) => Left::Full(left, error),
            None => Left::Open(left),
        }
    }

    /// Takes the answers down; returns what is to be looked at again.
    fn note(&self, open: Vec<TaskCommit>, answers: Vec<Committed>) -> Vec<TaskCommit> {
        let (mut done, mut left) = (Vec::with_capacity(open.len()), Vec::new());
        // A driver answers each; what has no answer is looked at again.
        let mut answers = answers.into_iter();
        for mut commit in open {
            match answers.next() {
                Some(Committed::Done) if commit.sends_anew() => left.push(commit),
                Some(Committed::Done) => done.push(commit),
                Some(Committed::Lost) => {
                    commit.lose();
                    done.push(commit);
                }
                Some(Committed::Refused(refusal)) => {
                    self.refuse(&mut commit, &refusal);
                    left.push(commit);
                }
                None => left.push(commit),
            }
        }
        self.end(done);
        left
    }

    /// Nothing is left to be done for these.
    fn end(&self, done: Vec<TaskCommit>) {
        self.shared.count(done.iter().filter_map(|commit| commit.ending.as_ref()));
        done.into_iter().for_each(tell);
    }

    /// A part of it can never be done. First its task fails for that reason, in few bytes; if that is refused too, its
    /// message becomes a dead letter and nobody is told; if even that is, it stays held until the worker ends.
    fn refuse(&self, commit: &mut TaskCommit, refusal: &Refusal) {
        let Refusal { part, why } = refusal;
        let (id, name) = commit.label();
        tracing::error!(task_id = id, task_name = name, error = %why, "{}", words(*part));
        commit.effects = Effects::default();
        // Its message is another's: so is what is told of it.
        if commit.became == Became::Lost {
            return;
        }
        commit.refusals += 1;
        commit.became = Became::Refused(why.clone());
        if commit.ending.is_none() || commit.refusals > REFUSALS_MAX {
            commit.fenced = Fenced::No;
            return;
        }
        let reason = self.shared.reason(kind(*part), why.clone());
        if commit.refusals == 1
            && let Some(subject) = &commit.subject
        {
            commit.effects = subject.fail(&exception(*part, why));
        }
        if *part == Part::Record && commit.refusals == 1 {
            commit.ending = Some(Ending::Failed { reason });
            return;
        }
        if let Fenced::Settles(_, disposition) = &mut commit.fenced {
            *disposition = Disposition::DeadLetter(reason.clone());
        }
        commit.ending = Some(Ending::Refused(reason));
    }
}

/// Fate of records that the backend has answered for.
enum Told {
    All,
    /// Some came when the consumer might have been reaped: they are looked at again.
    TooLate,
}

/// Commits that are not done.
enum Left {
    /// To be looked at again.
    Open(Vec<TaskCommit>),
    /// To be looked at again, some of them once the store has room.
    Full(Vec<TaskCommit>, Error),
}

/// Refusals of one commit before it is given up: as it is, as a failure, as a dead letter alone.
const REFUSALS_MAX: u32 = 2;

/// The first commits that go together: so many, and so many bytes, or one larger one.
fn next_batch(waiting: &mut VecDeque<TaskCommit>, most: usize) -> Vec<TaskCommit> {
    let mut bytes = 0;
    let fits = |commit: &&TaskCommit| {
        bytes += commit.size();
        bytes <= BATCH_BYTES_MAX
    };
    let count = waiting.iter().take(most).take_while(fits).count().max(1);
    waiting.drain(..count.min(waiting.len())).collect()
}

/// Takes the effects along, to be put back when they are not done.
fn at_broker(commit: &mut TaskCommit) -> Commit {
    let Effects { records, follow_ups } = std::mem::take(&mut commit.effects);
    let ending = match &commit.fenced {
        Fenced::Settles(held, disposition) => Fate::Settle(held.settle(disposition.clone())),
        Fenced::Starts(fence) => Fate::Starting(fence.receipt),
        Fenced::Holds(fence) => Fate::Holds(fence.receipt),
        Fenced::No => Fate::Unfenced,
    };
    Commit { records, publish: follow_ups, ending }
}

/// True if nothing is left to be done at the broker.
fn is_empty(commit: &TaskCommit) -> bool {
    let Effects { records, follow_ups } = &commit.effects;
    let changes = matches!(commit.fenced, Fenced::Settles(..) | Fenced::Starts(_));
    records.is_empty() && follow_ups.is_empty() && !changes
}

/// True if the same call would fail for ever because of what is in it.
fn blames_content(error: &Error) -> bool {
    matches!(error, Error::TooLarge { .. } | Error::Unsupported { .. } | Error::Act { retryable: false, .. })
}

/// Part for which a call with one commit was refused, where the server does not name it.
fn likely(batch: &Batch) -> Part {
    match batch.commits.first() {
        Some(commit) if !commit.publish.is_empty() => Part::FollowUp,
        Some(commit) if !commit.records.is_empty() => Part::Record,
        _ => Part::Settlement,
    }
}

fn kind(part: Part) -> &'static str {
    match part {
        Part::Record => "result-refused",
        Part::FollowUp => "follow-up-refused",
        Part::Settlement => "settlement-refused",
    }
}

fn words(part: Part) -> &'static str {
    match part {
        Part::Record => "the result backend refuses the record",
        Part::FollowUp => "the broker refuses a follow-up",
        Part::Settlement => "the broker refuses the end of a delivery",
    }
}

/// Celery's words for it.
fn exception(part: Part, why: &str) -> Exception {
    match part {
        Part::Record => Exception::new("celery.exceptions", "BackendStoreError", why),
        Part::FollowUp | Part::Settlement => Exception::new("kombu.exceptions", "OperationalError", why),
    }
}
