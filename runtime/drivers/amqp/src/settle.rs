//! How deliveries end.
//!
//! What must be kept elsewhere is published and confirmed first, all of it together; then the frames that let go of the
//! originals are written, all at once. A failure or a cancelled call before that leaves every delivery held as it was.

use std::sync::Arc;

use rwork_broker::{Disposition, Error, Receipt, Settled, Settlement};
use rwork_protocol::QueueName;

use crate::broker::locked;
use crate::consumer::{Ends, Held, Place, Shared, Stage};
use crate::declare::{DeadLetterRoute, Kind, short};
use crate::marks::Copy;
use crate::publish::{self, Parcel, again};
use crate::{consumer, dead, delayed};

/// Ends deliveries.
pub(crate) async fn settle(shared: &Arc<Shared>, batch: Vec<Settlement>) -> Result<Vec<Settled>, Error> {
    let mut answers = vec![Settled::Lost; batch.len()];
    let taken = Taken::take(shared, &batch);
    for ending in &taken.endings {
        if let Some(answer) = answers.get_mut(ending.place) {
            *answer = Settled::Done;
        }
    }
    let parcels = taken.parcels(&batch).await?;
    publish::send(&shared.inner, parcels).await.map_err(passing)?;
    publish::send_on(&shared.inner, taken.sent_on(&batch)).await.map_err(passing)?;
    let finished = taken.finish(&batch);
    for (place, tags) in finished.sheltered.iter().enumerate() {
        shared.ack_sheltered(place, tags);
    }
    if !finished.kept.is_empty() {
        shared.let_go_soon(finished.kept);
    }
    shared.bell.notify_one();
    Ok(answers)
}

/// The connection for publishing may be lost while what is held is still ours: trying again is right.
fn passing(error: Error) -> Error {
    match error {
        Error::Unreachable { .. } | Error::Refused { .. } => {
            Error::Act { act: "keep messages elsewhere".to_owned(), retryable: true, source: Box::new(error) }
        }
        error => error,
    }
}

/// What is under way to its end. Dropped before that, everything is held again as it was.
struct Taken<'a> {
    shared: &'a Shared,
    endings: Vec<Ending>,
}

struct Ending {
    /// In the batch.
    place: usize,
    receipt: u64,
    held: Held,
    end: End,
}

/// How the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ack,
    Requeue,
    Reject,
    /// It is not: whoever receives next gets it.
    Keep,
}

/// What is left to be done.
struct Finished {
    /// Tags in shelters, by lane.
    sheltered: Vec<Vec<u64>>,
    /// Receipts of what is kept for whoever receives next.
    kept: Vec<u64>,
}

impl<'a> Taken<'a> {
    /// Those of the batch that are ours, each once.
    fn take(shared: &'a Shared, batch: &[Settlement]) -> Self {
        let mut table = locked(&shared.table);
        let mut endings = Vec::with_capacity(batch.len());
        for (place, settlement) in batch.iter().enumerate() {
            let Receipt::Number(receipt) = settlement.receipt else { continue };
            let is_handed = table.get(receipt).is_some_and(|held| held.stage == Stage::Handed);
            let Some(held) = is_handed.then(|| table.remove(receipt)).flatten() else { continue };
            let Some(lane) = shared.lane(held.lane) else { continue };
            let state = lane.locked();
            let is_ours = match held.place {
                Place::Lane(tag) => state.holds(tag),
                Place::Shelter(_) => shared.has_shelter(held.lane),
            };
            if is_ours {
                let end = end(&settlement.disposition, held.place, state.kind);
                endings.push(Ending { place, receipt, held, end });
            }
        }
        Self { shared, endings }
    }

    /// What must be kept elsewhere.
    async fn parcels(&self, batch: &[Settlement]) -> Result<Vec<Parcel>, Error> {
        let mut parcels = Vec::new();
        for ending in &self.endings {
            let Some(settlement) = batch.get(ending.place) else { continue };
            let Some(lane) = self.shared.lane(ending.held.lane) else { continue };
            parcels.extend(self.parcel(ending, &settlement.disposition, &lane.queue).await?);
        }
        Ok(parcels)
    }

    /// What is given up out of a shelter can't be rejected out of its queue: it is sent where the queue would have sent it.
    fn sent_on(&self, batch: &[Settlement]) -> Vec<Parcel> {
        let sheltered = self.endings.iter().filter(|ending| matches!(ending.held.place, Place::Shelter(_)));
        let sent_on = sheltered.filter_map(|ending| {
            let Disposition::DeadLetter(reason) = &batch.get(ending.place)?.disposition else { return None };
            let (queue, held) = (&self.shared.lane(ending.held.lane)?.queue, &ending.held);
            let route = self.shared.inner.broker.dead_letter_route(queue)?;
            let properties = Copy::of(&held.properties).rejected(queue.as_str(), reason.at).build();
            let DeadLetterRoute { exchange, routing_key } = route;
            Some(Parcel { exchange, routing_key, properties, body: held.body.clone() })
        });
        sent_on.collect()
    }

    async fn parcel(
        &self,
        ending: &Ending,
        disposition: &Disposition,
        queue: &QueueName,
    ) -> Result<Option<Parcel>, Error> {
        let (held, inner) = (&ending.held, &self.shared.inner);
        let before = held.delivery_count.saturating_sub(1);
        let copy = |past| Ok::<_, Error>(again(short(queue.as_str())?, &held.properties, &held.body, past));
        let parcel = match disposition {
            Disposition::Ack => return Ok(None),
            Disposition::Requeue | Disposition::Release if ending.end != End::Ack => return Ok(None),
            Disposition::Requeue => copy(held.delivery_count)?,
            Disposition::Release => copy(before)?,
            Disposition::Delay(time) => {
                let properties = Copy::of(&held.properties).past(before).build();
                let direct = Parcel::to_queue(short(queue.as_str())?, properties, held.body.clone());
                delayed::parcel(inner, &inner.publishing, direct, *time).await.map_err(passing)?
            }
            Disposition::DeadLetter(reason) => {
                dead::declare_once(inner, &inner.publishing).await.map_err(passing)?;
                dead::parcel(queue, &held.properties, &held.body, held.delivery_count, reason)
            }
        };
        Ok(Some(parcel))
    }

    /// Lets go of the originals.
    fn finish(mut self, batch: &[Settlement]) -> Finished {
        let count = self.shared.lanes.len();
        let mut ends: Vec<Ends> = (0..count).map(|_| Ends::default()).collect();
        let mut sheltered = vec![Vec::new(); count];
        let mut kept = Vec::new();
        for ending in std::mem::take(&mut self.endings) {
            let (Some(ends), Some(sheltered)) =
                (ends.get_mut(ending.held.lane), sheltered.get_mut(ending.held.lane))
            else {
                continue;
            };
            match (ending.held.place, ending.end) {
                (Place::Shelter(tag), _) => sheltered.push(tag),
                (Place::Lane(tag), End::Ack) => ends.acks.push(tag),
                (Place::Lane(tag), End::Reject) => ends.rejects.push(tag),
                (Place::Lane(_), End::Keep) => kept.push((ending.receipt, ending.held)),
                (Place::Lane(tag), End::Requeue) => {
                    ends.requeues.push(tag);
                    self.remember(&ending, batch);
                }
            }
        }
        for (lane, ends) in self.shared.lanes.iter().zip(&ends) {
            lane.locked().end(ends);
        }
        Finished { sheltered, kept: self.shared.keep(kept) }
    }

    /// A classic queue will say of what is released that it was delivered.
    fn remember(&self, ending: &Ending, batch: &[Settlement]) {
        let is_release =
            batch.get(ending.place).is_some_and(|settlement| settlement.disposition == Disposition::Release);
        let Some(lane) = self.shared.lane(ending.held.lane).filter(|_| is_release) else { return };
        if lane.locked().kind == Kind::Classic {
            let held = &ending.held;
            self.shared.inner.broker.release(consumer::fingerprint(&held.properties, &held.body));
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        let mut table = locked(&self.shared.table);
        for ending in std::mem::take(&mut self.endings) {
            table.insert(ending.receipt, ending.held);
        }
    }
}

/// A quorum queue counts what goes back to it, and puts it at its end; a classic one does not, so that a copy is published
/// which says how often.
fn end(disposition: &Disposition, place: Place, kind: Kind) -> End {
    match (disposition, place) {
        (Disposition::DeadLetter(_), Place::Lane(_)) => End::Reject,
        (Disposition::Release, Place::Lane(_)) if kind == Kind::Quorum => End::Keep,
        (Disposition::Release, Place::Lane(_)) => End::Requeue,
        (Disposition::Requeue, Place::Lane(_)) if kind == Kind::Quorum => End::Requeue,
        _ => End::Ack,
    }
}
