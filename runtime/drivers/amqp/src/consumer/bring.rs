//! The way to the shelter: a copy is published, comes to us, and then the original is acked.
//!
//! For so long the server has both, so that a copy needs a place of its own among what may be unacked. Where there is none
//! the queue's consumers are ended first: what is acked then is not followed by another message.

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::Error;
use tokio::time::timeout;

use super::lane::Lane;
use super::shelter::{self, Shelter};
use super::table::Place;
use super::{Ends, Shared, meet};
use crate::broker::locked;
use crate::marks::Copy;
use crate::publish::{self, Parcel};

/// How long a message that nobody has is kept waiting for a place. Then it goes back to be delivered anew: long before
/// the server would take it, seldom enough to be no burden.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Somebody has it: it can't wait. Where every place is taken it is there twice for a moment, one message at a time.
    Handed,
    /// Nobody is to have it before its copy is there: it may wait, or go back as it came.
    Unhanded,
}

/// Publishes copies of these to their shelters. They are ours there as soon as they arrive.
pub(super) async fn bring(shared: &Arc<Shared>, receipts: Vec<u64>, which: Which) -> Result<(), Error> {
    for (place, lane) in shared.lanes.iter().enumerate() {
        let mut left = {
            let table = locked(&shared.table);
            let is_here = |receipt: &u64| table.get(*receipt).is_some_and(|held| held.lane == place);
            receipts.iter().copied().filter(is_here).collect::<Vec<u64>>()
        };
        if left.is_empty() {
            continue;
        }
        let shelter = shelter::open(shared, place, lane).await?;
        while !left.is_empty() {
            step(shared, (place, lane), &shelter, &mut left, which).await?;
        }
    }
    Ok(())
}

/// Brings as many as there are places for, or makes some.
async fn step(
    shared: &Shared,
    (place, lane): (usize, &Lane),
    shelter: &Shelter,
    left: &mut Vec<u64>,
    which: Which,
) -> Result<(), Error> {
    // From before the look, so that nothing is missed after it.
    let freed = shared.shelters.freed.notified();
    tokio::pin!(freed);
    freed.as_mut().enable();
    let is_forced = which == Which::Handed && !shared.shelters.is_any_under_way();
    let count = reserve(shared, (place, lane), left, is_forced).await?;
    if count > 0 {
        let batch: Vec<u64> = left.drain(..count).collect();
        let sent = publish::send(&shared.inner, parcels(shared, shelter, &batch)).await;
        if sent.is_err() {
            shared.shelters.abandon(&batch);
        }
        return sent;
    }
    if left.is_empty() {
        return Ok(());
    }
    if which == Which::Unhanded && left.len() > 1 && !shared.shelters.is_any_under_way() {
        give_back(shared, &left.split_off(left.len() / 2));
        return Ok(());
    }
    let waited = tokio::select! {
        waited = timeout(PATIENCE, freed) => waited.is_ok(),
        () = shared.closing.cancelled() => false,
        () = shared.wire.lost().cancelled() => false,
    };
    if !waited && which == Which::Unhanded {
        give_back(shared, &std::mem::take(left));
    }
    if !waited {
        shared.check()?;
    }
    Ok(())
}

/// Keeps places for copies of the first of these; returns how many.
async fn reserve(
    shared: &Shared,
    (place, lane): (usize, &Lane),
    receipts: &mut Vec<u64>,
    is_forced: bool,
) -> Result<usize, Error> {
    let _one_at_a_time = shared.granting.lock().await;
    if shared.room() < receipts.len() {
        meet::ask_for_less(shared, lane, 0).await?;
    }
    // What was settled meanwhile has no copy.
    let table = locked(&shared.table);
    receipts.retain(|receipt| table.get(*receipt).is_some());
    let count = shared.room().max(usize::from(is_forced)).min(receipts.len());
    shared.shelters.begin(place, receipts.get(..count).unwrap_or_default());
    drop(table);
    Ok(count)
}

fn parcels(shared: &Shared, shelter: &Shelter, receipts: &[u64]) -> Vec<Parcel> {
    let table = locked(&shared.table);
    let parcel = |receipt: &u64| {
        let Some(held) = table.get(*receipt) else {
            shared.shelters.abandon(&[*receipt]);
            return None;
        };
        let copy = Copy::of(&held.properties).past(held.delivery_count).held(*receipt);
        Some(Parcel::to_queue(shelter.name.clone(), copy.build(), held.body.clone()))
    };
    receipts.iter().filter_map(parcel).collect()
}

/// What nobody has had goes back, to be counted when it comes again as it would have been now.
pub(super) fn give_back(shared: &Shared, receipts: &[u64]) {
    let mut table = locked(&shared.table);
    for held in receipts.iter().filter_map(|receipt| table.remove(*receipt)) {
        if let (Some(lane), Place::Lane(tag)) = (shared.lane(held.lane), held.place) {
            lane.locked().end(&Ends { requeues: vec![tag], ..Ends::default() });
        }
    }
    drop(table);
    shared.bell.notify_one();
}

impl Shared {
    /// How many more the server may see unacked.
    fn room(&self) -> usize {
        let used: usize = self.accounts().iter().map(|account| account.used).sum();
        self.unsettled_max.saturating_sub(used + self.shelters.held())
    }
}
