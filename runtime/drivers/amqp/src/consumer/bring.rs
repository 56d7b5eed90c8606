//! The way to the shelter: a copy is published, comes to us, and then the original is acked.
//!
//! For so long the server has both, so that a copy needs a place of its own among what may be unacked. Where there is none
//! the queue's consumers are ended first: what is acked then is not followed by another message.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rwork_broker::Error;
use tokio::time::timeout;

use super::shelter::{self, Shelter};
use super::table::Place;
use super::{Ends, Shared, meet};
use crate::broker::locked;
use crate::marks::Copy;
use crate::publish::{self, Parcel};

/// How long a message that nobody has is kept waiting for a place. Then it goes back to be delivered anew: long before
/// the server would take it, seldom enough to be no burden.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that must be counted before anybody has them. One task brings all of them, so that those which wait for a
/// place are known together.
#[derive(Debug, Default)]
pub(super) struct Uncounted {
    waiting: Vec<u64>,
    /// There is a task.
    is_running: bool,
}

impl Uncounted {
    /// Adds some; whether a task must be begun.
    pub(super) fn add(&mut self, receipts: Vec<u64>) -> bool {
        self.waiting.extend(receipts);
        !std::mem::replace(&mut self.is_running, true)
    }

    /// What was added since the last time; without anything the task is over.
    fn take(&mut self, left: &mut Vec<u64>) -> bool {
        left.append(&mut self.waiting);
        self.is_running = !left.is_empty();
        self.is_running
    }
}

/// Brings what somebody has. It can't wait: where every place is taken it is there twice for a moment, one at a time.
pub(super) async fn bring_handed(shared: &Arc<Shared>, mut left: Vec<u64>) -> Result<(), Error> {
    while !left.is_empty() {
        let freed = shared.shelters.freed.notified();
        tokio::pin!(freed);
        // From before the look, so that nothing is missed after it.
        freed.as_mut().enable();
        let is_forced = !shared.shelters.is_any_under_way();
        if !step(shared, &mut left, is_forced).await? {
            wait(shared, freed).await;
            shared.check()?;
        }
    }
    Ok(())
}

/// Brings what nobody is to have before its copy is there: it may wait, or go back as it came.
pub(super) async fn bring_uncounted(shared: &Arc<Shared>) -> Result<(), Error> {
    let mut left = Vec::new();
    loop {
        let freed = shared.shelters.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        let is_any = locked(&shared.uncounted).take(&mut left);
        shared.shelters.want(is_any);
        if !is_any {
            shared.bell.notify_one();
            return Ok(());
        }
        // Nobody will make room for the only one there is, where there is one place in all.
        let is_forced = left.len() == 1 && shared.unsettled_max == 1;
        if step(shared, &mut left, is_forced).await? {
            continue;
        }
        if left.len() > 1 && !shared.shelters.is_any_under_way() {
            give_back(shared, &left.split_off(left.len() / 2));
        } else if !wait(shared, freed).await {
            give_back(shared, &std::mem::take(&mut left));
        }
    }
}

/// Waits for a place; whether that is worth while.
async fn wait(shared: &Shared, freed: impl Future<Output = ()>) -> bool {
    tokio::select! {
        waited = timeout(PATIENCE, freed) => waited.is_ok(),
        () = shared.closing.cancelled() => false,
        () = shared.wire.lost().cancelled() => false,
    }
}

/// Brings as many of one queue as there are places for; false where there is none.
async fn step(shared: &Arc<Shared>, left: &mut Vec<u64>, is_forced: bool) -> Result<bool, Error> {
    let first = {
        let table = locked(&shared.table);
        // What was settled meanwhile needs no copy.
        left.retain(|receipt| table.get(*receipt).is_some());
        left.first().and_then(|receipt| table.get(*receipt)).map(|held| held.lane)
    };
    let Some(place) = first else { return Ok(true) };
    let Some(lane) = shared.lane(place) else { return Ok(true) };
    let shelter = shelter::open(shared, place, lane).await?;
    let batch = reserve(shared, place, left, is_forced).await?;
    if batch.is_empty() {
        return Ok(left.is_empty());
    }
    left.retain(|receipt| !batch.contains(receipt));
    let sent = publish::send(&shared.inner, parcels(shared, &shelter, &batch)).await;
    if sent.is_err() {
        shared.shelters.abandon(&batch);
    }
    sent.map(|()| true)
}

/// Keeps places for copies of as many of these as there can be; they are of one queue.
async fn reserve(
    shared: &Shared,
    place: usize,
    receipts: &[u64],
    is_forced: bool,
) -> Result<BTreeSet<u64>, Error> {
    let _one_at_a_time = shared.granting.lock().await;
    let of_queue: Vec<u64> = {
        let table = locked(&shared.table);
        let is_of_queue = |receipt: &u64| table.get(*receipt).is_some_and(|held| held.lane == place);
        receipts.iter().copied().filter(is_of_queue).collect()
    };
    if let Some(lane) = shared.lane(place).filter(|_| shared.room() < of_queue.len()) {
        meet::ask_for_less(shared, lane, 0).await?;
    }
    for lane in &shared.lanes {
        if shared.room() == 0 {
            meet::ask_for_less(shared, lane, 0).await?;
        }
    }
    let count = shared.room().max(usize::from(is_forced)).min(of_queue.len());
    let batch: BTreeSet<u64> = of_queue.into_iter().take(count).collect();
    shared.shelters.begin(place, &batch);
    Ok(batch)
}

fn parcels(shared: &Shared, shelter: &Shelter, receipts: &BTreeSet<u64>) -> Vec<Parcel> {
    let table = locked(&shared.table);
    let parcel = |receipt: &u64| {
        let Some(held) = table.get(*receipt) else {
            shared.shelters.abandon([receipt]);
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
