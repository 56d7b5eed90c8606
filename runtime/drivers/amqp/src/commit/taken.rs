//! Deliveries on their way to their end.

use rwork_broker::{Commit, Committed, Disposition, Ending, Error, Settlement};
use rwork_protocol::QueueName;

use super::Progress;
use crate::broker::locked;
use crate::consumer::{Ends, Held, Place, Shared, Stage, fingerprint};
use crate::declare::{DeadLetterRoute, Kind, short};
use crate::marks::Copy;
use crate::publish::{self, Fate, Parcel, again};
use crate::{dead, delayed};

/// Commits that are under way. Dropped before [`Taken::finish`], every delivery is held again as it was.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    shared: &'a Shared,
    pub(super) under: Vec<Under<'a>>,
}

/// One commit that is fenced and not answered.
#[derive(Debug)]
pub(super) struct Under<'a> {
    /// In the batch.
    pub(super) place: usize,
    pub(super) commit: &'a Commit,
    /// The delivery that it ends.
    ending: Option<Ended<'a>>,
    /// Messages that it publishes.
    pub(super) published: usize,
}

/// A delivery that was taken out of the table.
#[derive(Debug)]
struct Ended<'a> {
    settlement: &'a Settlement,
    held: Held,
    end: End,
}

/// Frame by which the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ack,
    Requeue,
    Reject,
    /// None: whoever receives next gets the message.
    Keep,
}

/// Steps that are left.
pub(super) struct Finished {
    /// Tags in shelters, by lane.
    pub(super) sheltered: Vec<Vec<u64>>,
    /// Receipts of what is kept for whoever receives next.
    pub(super) kept: Vec<u64>,
}

impl<'a> Taken<'a> {
    /// Takes the commits that have no answer. Those whose delivery is not ours get theirs.
    pub(super) fn take(shared: &'a Shared, progress: &mut Progress, commits: &'a [Commit]) -> Self {
        let mut under = Vec::with_capacity(commits.len());
        for (place, commit) in commits.iter().enumerate() {
            if progress.is_answered(place) {
                continue;
            }
            let ending = match &commit.ending {
                Ending::Settle(settlement) => shared.take(settlement).map(Some),
                Ending::Starting(receipt) | Ending::Holds(receipt) => shared.holds(receipt.0).then_some(None),
                Ending::Unfenced => Some(None),
            };
            match ending {
                Some(ending) => under.push(Under { place, commit, ending, published: 0 }),
                None => progress.answer(place, Committed::Lost),
            }
        }
        Self { shared, under }
    }

    pub(super) fn publishes_nothing(&self) -> bool {
        self.under.iter().all(|under| under.commit.publish.is_empty() && !under.keeps_a_copy())
    }

    /// Takes a commit no further: its delivery is held as it was.
    pub(super) fn abandon(&mut self, place: usize) {
        let (abandoned, under) =
            std::mem::take(&mut self.under).into_iter().partition(|under| under.place == place);
        self.under = under;
        self.shared.hold_again(abandoned);
    }

    /// What is given up out of a shelter can't be rejected out of its queue: it is sent where the queue would have sent it.
    pub(super) async fn send_on(&self) -> Result<(), Error> {
        let sent_on = self.under.iter().filter_map(|under| {
            let Ended { settlement, held, .. } = under.ending.as_ref()?;
            let Disposition::DeadLetter(reason) = &settlement.disposition else { return None };
            let Place::Shelter(_) = held.place else { return None };
            let queue = &self.shared.lane(held.lane)?.queue;
            let route = self.shared.inner.broker.dead_letter_route(queue)?;
            let properties = Copy::of(&held.properties).rejected(queue.as_str(), reason.at).build();
            let DeadLetterRoute { exchange, routing_key } = route;
            Some(Parcel { exchange, routing_key, properties, body: held.body.clone() })
        });
        publish::send_on(&self.shared.inner, sent_on.collect()).await
    }

    /// Lets go of the originals.
    pub(super) fn finish(mut self) -> Finished {
        let count = self.shared.lanes.len();
        let mut ends: Vec<Ends> = (0..count).map(|_| Ends::default()).collect();
        let mut sheltered = vec![Vec::new(); count];
        let mut kept = Vec::new();
        for ended in std::mem::take(&mut self.under).into_iter().filter_map(|under| under.ending) {
            let lane = ended.held.lane;
            let (Some(ends), Some(sheltered)) = (ends.get_mut(lane), sheltered.get_mut(lane)) else {
                continue;
            };
            match (ended.held.place, ended.end) {
                (Place::Shelter(tag), _) => sheltered.push(tag),
                (Place::Lane(tag), End::Ack) => ends.acks.push(tag),
                (Place::Lane(tag), End::Reject) => ends.rejects.push(tag),
                (Place::Lane(_), End::Keep) => kept.push((ended.settlement.receipt.0, ended.held)),
                (Place::Lane(tag), End::Requeue) => {
                    ends.requeues.push(tag);
                    self.shared.remember(&ended);
                }
            }
        }
        for (lane, ends) in self.shared.lanes.iter().zip(&ends) {
            lane.locked().end(ends);
        }
        Finished { sheltered, kept: self.shared.keep(kept) }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.shared.hold_again(std::mem::take(&mut self.under));
    }
}

impl Under<'_> {
    /// Something must be kept elsewhere before the delivery ends.
    fn keeps_a_copy(&self) -> bool {
        self.ending.as_ref().is_some_and(|ended| match ended.settlement.disposition {
            Disposition::Ack => false,
            Disposition::Requeue | Disposition::Release | Disposition::Interrupt => ended.end == End::Ack,
            Disposition::Delay(_) | Disposition::DeadLetter(_) => true,
        })
    }

    /// Messages to publish: follow-ups, then the copy to be kept elsewhere. None that is confirmed is sent again.
    pub(super) async fn fates(&self, shared: &Shared, confirmed: &[bool]) -> Result<Vec<Fate>, Error> {
        let is_kept = |nth| confirmed.get(nth).copied().unwrap_or(false);
        let mut fates = Vec::with_capacity(self.commit.publish.len() + 1);
        for (nth, publish) in self.commit.publish.iter().enumerate() {
            fates.push(match is_kept(nth) {
                true => Fate::Kept,
                false => Fate::prepared(publish::parcel(&shared.inner, publish.clone()).await)?,
            });
        }
        let Some(ended) = self.ending.as_ref().filter(|_| self.keeps_a_copy()) else { return Ok(fates) };
        let Some(lane) = shared.lane(ended.held.lane) else { return Ok(fates) };
        fates.push(match is_kept(fates.len()) {
            true => Fate::Kept,
            false => Fate::prepared(ended.copy(shared, &lane.queue).await)?,
        });
        Ok(fates)
    }
}

impl Ended<'_> {
    /// The copy of the message that outlives the delivery.
    async fn copy(&self, shared: &Shared, queue: &QueueName) -> Result<Parcel, Error> {
        let (held, inner) = (&self.held, &shared.inner);
        let before = held.delivery_count.saturating_sub(1);
        let name = short(queue.as_str())?;
        Ok(match &self.settlement.disposition {
            Disposition::Requeue => again(name, &held.properties, &held.body, held.delivery_count),
            Disposition::Ack | Disposition::Release | Disposition::Interrupt => {
                again(name, &held.properties, &held.body, before)
            }
            Disposition::Delay(time) => {
                let direct = again(name, &held.properties, &held.body, before);
                delayed::parcel(inner, &inner.publishing, direct, *time).await?
            }
            Disposition::DeadLetter(reason) => {
                dead::declare_once(inner, &inner.publishing).await?;
                dead::parcel(queue, &held.properties, &held.body, held.delivery_count, reason)
            }
        })
    }
}

impl Shared {
    /// Takes a delivery that ends out of the table, if it is ours.
    fn take<'a>(&self, settlement: &'a Settlement) -> Option<Ended<'a>> {
        let receipt = settlement.receipt.0;
        if !self.holds(receipt) {
            return None;
        }
        let held = locked(&self.table).remove(receipt)?;
        let kind = self.lane(held.lane)?.locked().kind;
        let end = end(&settlement.disposition, held.place, kind);
        Some(Ended { settlement, held, end })
    }

    /// True if a delivery is with the caller and can still be settled.
    fn holds(&self, receipt: u64) -> bool {
        let table = locked(&self.table);
        let Some(held) = table.get(receipt).filter(|held| held.stage == Stage::Handed) else { return false };
        match held.place {
            Place::Lane(tag) => self.lane(held.lane).is_some_and(|lane| lane.locked().holds(tag)),
            Place::Shelter(_) => self.has_shelter(held.lane),
        }
    }

    fn hold_again(&self, under: Vec<Under<'_>>) {
        let ended: Vec<_> = under.into_iter().filter_map(|under| under.ending).collect();
        if ended.is_empty() {
            return;
        }
        let mut table = locked(&self.table);
        ended.into_iter().for_each(|ended| table.insert(ended.settlement.receipt.0, ended.held));
    }

    /// A classic queue will say of what is released that it was delivered.
    fn remember(&self, ended: &Ended<'_>) {
        let Some(lane) = self.lane(ended.held.lane) else { return };
        let is_given_back =
            matches!(ended.settlement.disposition, Disposition::Release | Disposition::Interrupt);
        if is_given_back && lane.locked().kind == Kind::Classic {
            let held = &ended.held;
            self.inner.broker.release(fingerprint(&held.properties, &held.body));
        }
    }
}

/// A quorum queue counts what goes back to it, and puts it at its end; a classic one does not, so that a copy is published
/// which says how often.
fn end(disposition: &Disposition, place: Place, kind: Kind) -> End {
    match (disposition, place) {
        (Disposition::DeadLetter(_), Place::Lane(_)) => End::Reject,
        (Disposition::Release | Disposition::Interrupt, Place::Lane(_)) if kind == Kind::Quorum => End::Keep,
        (Disposition::Release | Disposition::Interrupt, Place::Lane(_)) => End::Requeue,
        (Disposition::Requeue, Place::Lane(_)) if kind == Kind::Quorum => End::Requeue,
        _ => End::Ack,
    }
}
