//! Effects of one step on the outside world, on their way to the committer.

use std::fmt;
use std::sync::Arc;

use rwork_backend::Store;
use rwork_broker::{Delivery, Disposition, Publish, Receipt, Route, Settlement};
use rwork_protocol::{Exception, State, TaskId, TaskName, Timestamp};
use tokio::sync::oneshot;

use crate::budget::Grant;
use crate::ending::{AckPolicy, Ending, disposition};
use crate::session::{Over, Session};

/// A delivery and the consumer by which it is ours.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: Arc<Session>,
    pub(crate) delivery: Delivery,
}

/// The delivery that something depends on.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) session: Arc<Session>,
    pub(crate) receipt: Receipt,
}

impl Held {
    /// End of the delivery, for the broker, which needs the message only where it is kept.
    pub(crate) fn settle(&self, disposition: Disposition) -> Settlement {
        let Delivery { message, queue, receipt, .. } = &self.delivery;
        let message = is_kept(&disposition).then(|| message.clone());
        Settlement { receipt: *receipt, queue: queue.clone(), disposition, message }
    }

    /// Its message, for its queue once more.
    fn again(&self, not_before: Option<Timestamp>) -> Publish {
        let Delivery { message, queue, .. } = &self.delivery;
        Publish { route: Route::queue(queue), message: message.clone(), not_before }
    }

    pub(crate) fn fence(&self) -> Fence {
        Fence { session: Arc::clone(&self.session), receipt: self.delivery.receipt }
    }
}

/// Task that a commit belongs to: kept until the commit is done, with all that it holds of memory.
pub(crate) trait Subject: Send + Sync {
    /// For log lines.
    fn label(&self) -> (&TaskId, &TaskName);

    /// Effects of its failure: its own record, those of steps that will never run, errbacks.
    fn fail(&self, exception: &Exception) -> Effects;
}

impl fmt::Debug for dyn Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.label().fmt(f)
    }
}

/// Records and follow-ups.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// In order.
    pub(crate) records: Vec<Store>,
    /// In order.
    pub(crate) follow_ups: Vec<Publish>,
}

impl Effects {
    /// Bytes that they carry.
    pub(crate) fn size(&self) -> usize {
        let published: usize = self.follow_ups.iter().map(|publish| publish.message.size()).sum();
        self.records.iter().map(Store::size).sum::<usize>() + published
    }
}

/// Everything that one step causes: all of it, or nothing.
#[derive(Debug, Default)]
pub(crate) struct TaskCommit {
    /// Absent when the message could not be read.
    pub(crate) subject: Option<Arc<dyn Subject>>,
    pub(crate) effects: Effects,
    pub(crate) fenced: Fenced,
    /// Ending that is counted and told once the commit is done; absent where nothing ends yet.
    pub(crate) ending: Option<Ending>,
    /// Wall time of the run, for its log line.
    pub(crate) wall_ms: f64,
    /// Addition to its log line; empty: nothing.
    pub(crate) detail: String,
    /// Told at the end what became of it. Nobody there is fine.
    pub(crate) reply: Option<oneshot::Sender<Became>>,
    /// Memory that is held until it is done. Kept for its drop alone.
    pub(crate) _grants: Vec<Grant>,
    /// Written by the committer alone.
    pub(crate) became: Became,
    /// Refusals of a part of it so far. Written by the committer alone.
    pub(crate) refusals: u32,
}

/// Effect of a commit on its delivery.
#[derive(Debug, Default)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, and a box would be an allocation for each message"
)]
pub(crate) enum Fenced {
    /// Ends it.
    Settles(Held, Disposition),
    /// A redelivered message starts: written down first.
    Starts(Fence),
    /// Leaves it held, and is pointless when it is not.
    Holds(Fence),
    /// None is held: acked early.
    #[default]
    No,
}

/// What became of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Became {
    /// All of it.
    #[default]
    Done,
    /// The delivery was not ours any more: it will be, or has been, run elsewhere.
    Lost,
    /// The server refuses a part of it, for this reason.
    Refused(String),
}

impl TaskCommit {
    pub(crate) fn of(subject: Arc<dyn Subject>, effects: Effects) -> Self {
        Self { subject: Some(subject), effects, ..Self::default() }
    }

    /// The same with this ending, and with what that means for the delivery, if it is still ours to settle.
    pub(crate) fn ended(self, held: Option<Held>, ending: Ending, policy: AckPolicy) -> Self {
        let fenced = held.and_then(|held| disposition(&ending, policy).map(|how| Fenced::Settles(held, how)));
        Self { fenced: fenced.unwrap_or_default(), ending: Some(ending), ..self }
    }

    /// The consumer by which its delivery is ours.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match &self.fenced {
            Fenced::Settles(held, _) => Some(&held.session),
            Fenced::Starts(fence) | Fenced::Holds(fence) => Some(&fence.session),
            Fenced::No => None,
        }
    }

    /// Its consumer has ended: what is lost is given up, what nobody else has goes on without a fence.
    pub(crate) fn after_the_end(&mut self, over: Over) {
        match over {
            Over::Dead => self.give_up(),
            Over::Forgotten => self.send_back(),
        }
        self.fenced = Fenced::No;
    }

    /// The store has lost the message: what goes back to its queue is sent anew.
    fn send_back(&mut self) {
        let Fenced::Settles(held, how) = &self.fenced else { return };
        let not_before = match how {
            Disposition::Release | Disposition::Interrupt | Disposition::Requeue => None,
            Disposition::Delay(until) => Some(*until),
            Disposition::Ack | Disposition::DeadLetter(_) => return,
        };
        let again = held.again(not_before);
        self.effects.follow_ups.push(again);
    }

    /// Before it is sent: the message of an early ack that nobody waits for any more goes back instead.
    pub(crate) fn release_if_abandoned(&mut self) {
        if self.is_abandoned()
            && let Fenced::Settles(_, how) = &mut self.fenced
        {
            *how = Disposition::Release;
            self.effects = Effects::default();
            self.ending = Some(Ending::Released);
        }
    }

    /// When it is done: the message of an early ack that nobody waits for any more must be sent anew; true for such a one,
    /// which is that commit now.
    pub(crate) fn sends_anew(&mut self) -> bool {
        if !self.is_abandoned() {
            return false;
        }
        if let Fenced::Settles(held, _) = std::mem::take(&mut self.fenced) {
            let follow_ups = vec![held.again(None)];
            self.effects = Effects { follow_ups, ..Effects::default() };
        }
        self.ending = Some(Ending::Released);
        true
    }

    /// True for the early ack of a run that a shutdown has abandoned.
    fn is_abandoned(&self) -> bool {
        let is_early = self.ending == Some(Ending::Starting) && matches!(self.fenced, Fenced::Settles(..));
        is_early && self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// The delivery is not ours any more. A success is still worth keeping, since it is final; anything else would be in
    /// the way of whoever has the message now.
    pub(crate) fn give_up(&mut self) {
        self.effects.follow_ups.clear();
        self.effects.records.retain(|store| store.record.status == State::Success);
        self.lose();
    }

    /// Says that nothing came of it.
    pub(crate) fn lose(&mut self) {
        self.fenced = Fenced::No;
        self.ending = self.ending.as_ref().map(|_| Ending::Lost);
        self.became = Became::Lost;
    }

    /// Id and name of its task, for log lines.
    pub(crate) fn label(&self) -> (Option<&str>, Option<&str>) {
        let label = self.subject.as_deref().map(Subject::label);
        label.map(|(id, name)| (id.as_str(), name.as_str())).unzip()
    }

    /// Bytes that it carries.
    pub(crate) fn size(&self) -> usize {
        let kept = match &self.fenced {
            Fenced::Settles(held, disposition) if is_kept(disposition) => held.delivery.message.size(),
            _ => 0,
        };
        self.effects.size() + kept
    }
}

/// True for what the broker needs the message for once more.
fn is_kept(disposition: &Disposition) -> bool {
    matches!(disposition, Disposition::DeadLetter(_) | Disposition::Delay(_))
}
