//! The one place that writes to the outside: results, then follow-ups, then acks, a batch at a time.
//!
//! While a batch commits the next one gathers, so that the cost of a round trip is paid per batch. Nothing is given up
//! because a server is slow or away: it waits, and with it, through the bounded channel, the whole worker. Decides
//! nothing about a delivery, save where a server refuses what is to be written.

use std::sync::Arc;

use rwork_backend::Store;
use rwork_broker::{Disposition, Error, Settled};
use rwork_protocol::{Exception, Record, TaskId};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::commit::{Commit, Committed};
use crate::ending::Ending;
use crate::outage::{Outage, chain};
use crate::session::Session;
use crate::shared::Shared;

#[derive(Debug)]
pub(crate) struct Settler {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Commit>,
    storing: Outage,
    publishing: Outage,
    settling: Outage,
}

impl Settler {
    pub(crate) fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Commit>) -> Self {
        Self {
            storing: Outage::of_backend("store results", shared.backoff()),
            publishing: Outage::of_broker("publish follow-ups", shared.backoff()),
            settling: Outage::of_broker("settle deliveries", shared.backoff()),
            shared,
            inbox,
        }
    }

    /// Commits until every sender is gone and nothing is left.
    pub(crate) async fn run(mut self) {
        let batch_max = self.shared.config.settle_batch_max;
        let mut batch = Vec::with_capacity(batch_max);
        while self.inbox.recv_many(&mut batch, batch_max).await > 0 {
            self.commit(&mut batch).await;
            self.shared.count(batch.iter().filter_map(|commit| commit.ending.as_ref()));
            batch.drain(..).for_each(tell);
        }
    }

    async fn commit(&mut self, batch: &mut [Commit]) {
        #[cfg(test)]
        if self.shared.mistake == Some(crate::sim::Mistake::AckBeforeStore) {
            self.settle(batch).await;
        }
        self.store(batch).await;
        self.publish(batch).await;
        self.settle(batch).await;
    }

    async fn store(&mut self, batch: &mut [Commit]) {
        loop {
            give_up_lost(batch);
            let records: Vec<_> = batch.iter().flat_map(|commit| commit.records.iter().cloned()).collect();
            if records.is_empty() {
                return;
            }
            match self.shared.backend.store(records).await {
                Ok(_) => return self.storing.over(),
                Err(error) if blames_content(&error) && batch.len() > 1 => {
                    // One of them is to blame: each for itself, so that the others are not held up.
                    for commit in batch.chunks_mut(1) {
                        Box::pin(self.store(commit)).await;
                    }
                    return;
                }
                Err(error) if blames_content(&error) => {
                    batch.iter_mut().for_each(|commit| self.refuse_record(commit, &error))
                }
                Err(error) => sleep(self.storing.failed(&error)).await,
            }
        }
    }

    async fn publish(&mut self, batch: &mut [Commit]) {
        loop {
            give_up_lost(batch);
            let messages: Vec<_> =
                batch.iter().flat_map(|commit| commit.follow_ups.iter().cloned()).collect();
            if messages.is_empty() {
                return;
            }
            match self.shared.broker.publish(messages).await {
                Ok(()) => return self.publishing.over(),
                Err(error) if blames_content(&error) && batch.len() > 1 => {
                    for commit in batch.chunks_mut(1) {
                        Box::pin(self.publish(commit)).await;
                    }
                    return;
                }
                Err(error) if blames_content(&error) => {
                    batch.iter_mut().for_each(|commit| self.refuse_follow_ups(commit, &error));
                    return Box::pin(self.store(batch)).await;
                }
                Err(error) => sleep(self.publishing.failed(&error)).await,
            }
        }
    }

    async fn settle(&mut self, batch: &mut [Commit]) {
        while let Some(session) = first_session(batch) {
            let mut places = Vec::with_capacity(batch.len());
            let mut settlements = Vec::with_capacity(batch.len());
            for (place, commit) in batch.iter_mut().enumerate() {
                if let Some((held, disposition)) =
                    commit.settlement.take_if(|(held, _)| Arc::ptr_eq(&held.session, &session))
                {
                    settlements.push(held.delivery.settle(disposition));
                    places.push(place);
                }
            }
            let answers = session.settle(settlements, &mut self.settling).await;
            for (nth, place) in places.into_iter().enumerate() {
                let settled = answers.as_ref().ok().and_then(|answers| answers.get(nth));
                if settled != Some(&Settled::Done)
                    && let Some(commit) = batch.get_mut(place)
                {
                    commit.became = Committed::Lost;
                    commit.ending = commit.ending.as_ref().map(|_| Ending::Lost);
                }
            }
        }
    }

    /// The backend will never take this record: whoever waits for the task is told so instead, in few bytes; if even that
    /// is refused, the message becomes a dead letter.
    fn refuse_record(&self, commit: &mut Commit, error: &Error) {
        let why = chain(error);
        commit.log(|id, name| tracing::error!(task_id = id, task_name = name, error = %why, "the backend refuses the record"));
        let first_time = commit.became != Committed::Refused;
        commit.became = Committed::Refused;
        commit.follow_ups.clear();
        let refused = std::mem::take(&mut commit.records);
        if commit.ending.is_none() {
            return;
        }
        let reason = self.shared.reason("result-refused", why.clone());
        match (&commit.task, &mut commit.settlement) {
            (Some((id, _)), _) if first_time => {
                let exception = Exception::new("celery.exceptions", "BackendStoreError", &why);
                commit.records.push(self.instead(&refused, id, &exception));
                commit.ending = Some(Ending::Failed { reason });
            }
            (_, Some((_, disposition))) => {
                *disposition = Disposition::DeadLetter(reason.clone());
                commit.ending = Some(Ending::Refused(reason));
            }
            (_, None) => {}
        }
    }

    /// The broker will never take these follow-ups: the message becomes a dead letter, its task a failure (unless its
    /// success is stored already, which is final).
    fn refuse_follow_ups(&self, commit: &mut Commit, error: &Error) {
        let why = chain(error);
        commit.log(|id, name| tracing::error!(task_id = id, task_name = name, error = %why, "the broker refuses what follows"));
        commit.follow_ups.clear();
        let stored = std::mem::take(&mut commit.records);
        let reason = self.shared.reason("follow-up-refused", why.clone());
        if let Some((id, _)) = &commit.task {
            let exception = Exception::new("kombu.exceptions", "OperationalError", &why);
            commit.records.push(self.instead(&stored, id, &exception));
        }
        if let Some((_, disposition)) = &mut commit.settlement {
            *disposition = Disposition::DeadLetter(reason.clone());
            commit.ending = Some(Ending::Refused(reason));
        }
    }

    /// A failure in few bytes in place of the task's own record, for the same reader.
    fn instead(&self, records: &[Store], id: &TaskId, exception: &Exception) -> Store {
        let failure = self.shared.failure(id.clone(), exception);
        match records.iter().find(|store| store.record.task_id == *id) {
            None => self.shared.store(failure),
            Some(store) => {
                let Record { group_id, parent_id, component, .. } = store.record.clone();
                Store { record: Record { group_id, parent_id, component, ..failure }, ..store.clone() }
            }
        }
    }
}

fn tell(commit: Commit) {
    if let Some(reply) = commit.reply {
        // A task that was killed meanwhile no longer asks.
        let _ = reply.send(commit.became);
    }
}

/// Whether the same call would fail for ever because of what is in it.
fn blames_content(error: &Error) -> bool {
    matches!(error, Error::TooLarge { .. } | Error::Unsupported { .. } | Error::Act { retryable: false, .. })
}

fn give_up_lost(batch: &mut [Commit]) {
    batch.iter_mut().filter(|commit| commit.is_lost()).for_each(Commit::give_up);
}

fn first_session(batch: &[Commit]) -> Option<Arc<Session>> {
    batch.iter().find_map(|commit| commit.settlement.as_ref().map(|(held, _)| Arc::clone(&held.session)))
}
