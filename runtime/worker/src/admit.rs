//! Admit: which request is next, and then a slot for that one.
//!
//! Chooses first, so that rate limits, pools and fairness can ask for a slot of the right kind; holds what is not due yet,
//! and the one that was chosen and waits for its slot. Never runs anything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use rwork_broker::Receipt;
use tokio::time::{Instant, sleep_until};

use crate::executor::Executor;
use crate::parts::Parts;
use crate::request::Accepted;
use crate::session::Session;

/// Requests that have not started.
pub(crate) struct Admission<E: Executor> {
    parts: Arc<Parts<E>>,
    /// Due, the first to be started first.
    ready: VecDeque<Accepted<E>>,
    /// By due time, then by arrival.
    later: BTreeMap<(Instant, u64), Accepted<E>>,
    arrivals: u64,
    /// The one that is next, and the slot that it waits for.
    chosen: Option<(Accepted<E>, BoxFuture<'static, E::Slot>)>,
}

impl<E: Executor> Admission<E> {
    pub(crate) fn new(parts: Arc<Parts<E>>) -> Self {
        Self { parts, ready: VecDeque::new(), later: BTreeMap::new(), arrivals: 0, chosen: None }
    }

    /// Requests that could start now.
    pub(crate) fn unstarted(&self) -> usize {
        self.ready.len() + usize::from(self.chosen.is_some())
    }

    /// Requests that are not due yet.
    pub(crate) fn waiting(&self) -> usize {
        self.later.len()
    }

    pub(crate) fn add(&mut self, accepted: Accepted<E>) {
        self.ready.push_back(accepted);
    }

    pub(crate) fn add_later(&mut self, accepted: Accepted<E>, wait: Duration) {
        self.arrivals += 1;
        self.later.insert((Instant::now() + wait, self.arrivals), accepted);
    }

    /// The next request that has a slot, if there is one now.
    pub(crate) fn next(&mut self) -> Option<(Accepted<E>, E::Slot)> {
        if self.chosen.is_some() {
            return None;
        }
        let next = self.ready.pop_front()?;
        let executor = &self.parts.executor;
        if let Some(slot) = executor.try_admit(&next.request.task) {
            return Some((next, slot));
        }
        let (parts, task) = (Arc::clone(&self.parts), next.request.task.clone());
        self.chosen = Some((next, async move { parts.executor.admit(&task).await }.boxed()));
        None
    }

    /// Waits for a slot for the one that was chosen; `None`: something is due first. Cancel safe.
    pub(crate) async fn admitted(&mut self) -> Option<(Accepted<E>, E::Slot)> {
        let due = due(self.later.first_key_value().map(|((at, _), _)| *at));
        let Some((_, slot)) = &mut self.chosen else {
            due.await;
            return None;
        };
        tokio::select! {
            biased;
            () = due => None,
            slot = slot => self.chosen.take().map(|(accepted, _)| (accepted, slot)),
        }
    }

    /// Moves due requests before those that came later.
    pub(crate) fn wake_due(&mut self) {
        let later = self.later.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut self.later, later);
        due.into_values().rev().for_each(|accepted| self.ready.push_front(accepted));
    }

    /// Drops what is not ours any more: of this consumer these, or all.
    pub(crate) fn drop_lost(&mut self, session: &Arc<Session>, receipts: Option<&[Receipt]>) {
        let is_lost = |accepted: &Accepted<E>| accepted.is_one_of(session, receipts);
        self.ready.retain(|accepted| !is_lost(accepted));
        self.later.retain(|_, accepted| !is_lost(accepted));
        if self.chosen.as_ref().is_some_and(|(accepted, _)| is_lost(accepted)) {
            self.chosen = None;
        }
    }

    /// The last ones beyond the first `keep`, the last first.
    pub(crate) fn take_beyond(&mut self, keep: usize) -> Vec<Accepted<E>> {
        let keep = keep.saturating_sub(usize::from(self.chosen.is_some()));
        let mut beyond: Vec<_> = self.ready.drain(keep.min(self.ready.len())..).collect();
        beyond.reverse();
        beyond
    }

    /// Everything, the last to be started first.
    pub(crate) fn take_all(&mut self) -> Vec<Accepted<E>> {
        let chosen = self.chosen.take().map(|(accepted, _)| accepted);
        let first = chosen.into_iter().chain(std::mem::take(&mut self.ready));
        let mut all: Vec<_> = first.collect();
        all.reverse();
        all.extend(std::mem::take(&mut self.later).into_values());
        all
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
