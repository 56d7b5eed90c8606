//! What one step wants done in the outside world, on its way to the settler.

use std::sync::Arc;

use rwork_backend::Store;
use rwork_broker::{Delivery, Disposition, Publish};
use rwork_protocol::{State, TaskId, TaskName};
use tokio::sync::oneshot;

use crate::ending::{AckPolicy, Ending, disposition};
use crate::session::Session;

/// A delivery and the session in which it is ours.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: Arc<Session>,
    pub(crate) delivery: Delivery,
}

/// Records, then follow-ups, then the delivery's end: always in this order, each idempotent by task id.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    /// Whose, for the log lines; absent when the message could not be read.
    pub(crate) task: Option<(TaskId, TaskName)>,
    /// Stored first, in order.
    pub(crate) records: Vec<Store>,
    /// Published second, confirmed.
    pub(crate) follow_ups: Vec<Publish>,
    /// Settled last; absent after an early ack, and where nothing ends yet.
    pub(crate) settlement: Option<(Held, Disposition)>,
    /// Where nothing is settled: the session without which this is pointless.
    pub(crate) within: Option<Arc<Session>>,
    /// What is counted once it is done; absent where nothing ends yet.
    pub(crate) ending: Option<Ending>,
    /// Told at the end what became of it. Nobody there is fine.
    pub(crate) reply: Option<oneshot::Sender<Committed>>,
    /// Written by the settler alone.
    pub(crate) became: Committed,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Committed {
    /// All of it.
    #[default]
    Done,
    /// The delivery was not ours any more: it will be, or has been, run elsewhere.
    Lost,
    /// The backend refuses the record.
    Refused,
}

impl Commit {
    /// A record that goes with no ending.
    pub(crate) fn note(task: (TaskId, TaskName), record: Store) -> Self {
        Self { task: Some(task), records: vec![record], ..Self::default() }
    }

    /// The same with this ending, and with what that means for the delivery, if it is still ours to settle.
    pub(crate) fn ended(self, held: Option<Held>, ending: Ending, policy: AckPolicy) -> Self {
        let settlement = held.and_then(|held| disposition(&ending, policy).map(|decided| (held, decided)));
        Self { settlement, ending: Some(ending), ..self }
    }

    pub(crate) fn is_lost(&self) -> bool {
        let settled_in = self.settlement.as_ref().map(|(held, _)| &held.session);
        settled_in.or(self.within.as_ref()).is_some_and(|session| session.is_lost())
    }

    /// The delivery is not ours any more. A success is still worth keeping, since it is final and saves the next worker
    /// the run; anything else would be in its way.
    pub(crate) fn give_up(&mut self) {
        self.settlement = None;
        self.follow_ups.clear();
        self.records.retain(|store| store.record.status == State::Success);
        self.ending = self.ending.as_ref().map(|_| Ending::Lost);
        self.became = Committed::Lost;
    }

    /// Writes a log line with the task's id and name.
    pub(crate) fn log(&self, line: impl FnOnce(&str, &str)) {
        match &self.task {
            Some((id, name)) => line(id.as_str(), name.as_str()),
            None => line("", ""),
        }
    }
}
