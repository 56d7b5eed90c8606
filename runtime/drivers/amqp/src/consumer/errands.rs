//! Messages that must be published once more before anybody gets them, on tasks of their own.

use std::sync::Arc;

use rwork_broker::Error;
use rwork_protocol::Timestamp;

use super::arrive::Errands;
use super::bring::bring_uncounted;
use super::table::Place;
use super::{Ends, Shared};
use crate::broker::locked;
use crate::declare::short;
use crate::delayed;
use crate::marks::Copy;
use crate::publish::{self, Parcel};

/// Begins what is to be done. When it fails the consumer does, so that nothing is held for ever.
pub(super) fn run(shared: &Arc<Shared>, errands: Errands) {
    let Errands { early, recount } = errands;
    if !early.is_empty() {
        let shared = Arc::clone(shared);
        shared.errands.clone().spawn(async move {
            if let Err(error) = delay(&shared, early).await {
                shared.fail(&error);
            }
        });
    }
    if recount.is_empty() {
        return;
    }
    // Whoever waits for a place must know of these, too.
    let must_begin = locked(&shared.uncounted).add(recount);
    shared.shelters.freed.notify_waiters();
    if must_begin {
        let shared = Arc::clone(shared);
        shared.errands.clone().spawn(async move {
            if let Err(error) = bring_uncounted(&shared).await {
                shared.fail(&error);
            }
        });
    }
}

/// Back to delayed delivery: the delay was longer than it can be in one go, or the message came another way.
async fn delay(shared: &Shared, early: Vec<(u64, Timestamp)>) -> Result<(), Error> {
    let mut parcels = Vec::with_capacity(early.len());
    let link = &shared.inner.publishing;
    for (receipt, time) in &early {
        let copy = {
            let table = locked(&shared.table);
            table.get(*receipt).and_then(|held| {
                let lane = shared.lane(held.lane)?;
                let past = held.delivery_count.saturating_sub(1);
                Some((lane.queue.clone(), Copy::of(&held.properties).past(past).build(), held.body.clone()))
            })
        };
        let Some((queue, properties, body)) = copy else { continue };
        let direct = Parcel::to_queue(short(queue.as_str())?, properties, body);
        parcels.push(delayed::parcel(&shared.inner, link, direct, *time).await?);
    }
    publish::send(&shared.inner, parcels).await?;
    for (receipt, _) in early {
        let held = locked(&shared.table).remove(receipt);
        if let Some(held) = held
            && let (Some(lane), Place::Lane(tag)) = (shared.lane(held.lane), held.place)
        {
            lane.locked().end(&Ends { acks: vec![tag], ..Ends::default() });
        }
    }
    Ok(())
}
