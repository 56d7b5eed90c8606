//! Taking: from the wish for messages to deliveries, and the waiting between.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rwork_broker::{Delivery, Error, Room};
use rwork_protocol::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::arrive::{self, Errands};
use super::basket::Basket;
use super::credit::{self, Budget};
use super::lane::Need;
use super::{errands, meet};
use crate::broker::locked;

/// Credit goes from one queue to another so often at most: it costs some round trips.
const SHED_PAUSE: Duration = Duration::from_secs(1);

/// One consumer's taking.
#[derive(Default)]
pub(super) struct Pump {
    /// The queue that is served first next time.
    first: usize,
    /// What the server was asked for. It is kept when whoever began it goes away: the next one goes on with it.
    call: Option<BoxFuture<'static, Result<(), Error>>>,
    /// When credit was last taken from a queue.
    shed_at: Option<Instant>,
    /// When it can be taken again, for one that waits for it.
    shed_again: Option<Instant>,
}

impl Pump {
    /// Has the server send enough.
    ///
    /// # Cancel safety
    /// Cancel safe: a call goes on with the next one.
    pub(super) async fn meet_needs(&mut self, shared: &Arc<Shared>, max: usize) -> Result<(), Error> {
        loop {
            if let Some(call) = &mut self.call {
                let met = call.await;
                self.call = None;
                met?;
            }
            let Some((place, need)) = self.need(shared, max) else { return Ok(()) };
            self.call = Some(meet::meet(Arc::clone(shared), place, need).boxed());
        }
    }

    /// The first lane that lacks something.
    fn need(&mut self, shared: &Shared, max: usize) -> Option<(usize, Need)> {
        let mut lanes = shared.lanes.iter().enumerate();
        let broken = lanes.find_map(|(place, lane)| lane.locked().need().map(|need| (place, need)));
        if broken.is_some() {
            return broken;
        }
        if shared.lanes.iter().any(|lane| lane.locked().is_closed()) {
            return None;
        }
        let (accounts, budget) = (shared.accounts(), shared.budget());
        let next = credit::next(&accounts, budget, max);
        self.shed_again = None;
        let Some((_, Need::Less(_))) = next else { return next };
        let now = Instant::now();
        let again = self.shed_at.map_or(now, |at| at + SHED_PAUSE);
        if again <= now {
            self.shed_at = Some(now);
            return next;
        }
        self.shed_again = Some(again);
        credit::next(&accounts, Budget { may_shed: false, ..budget }, max)
    }

    /// What can be handed out now.
    pub(super) fn take(&mut self, shared: &Arc<Shared>, room: Room) -> Vec<Delivery> {
        let now = Timestamp::from_system(SystemTime::now());
        let mut table = locked(&shared.table);
        let messages = shared.unsettled_max.saturating_sub(table.handed()).min(room.messages);
        let mut basket = Basket::new(Room { messages, ..room });
        table.take_ready(&mut basket, now);
        let mut errands = Errands::default();
        let count = shared.lanes.len();
        // A fair part for each, and what others leave.
        let part = messages.div_ceil(count.max(1)).max(1);
        let mut is_any = true;
        while is_any && !basket.is_full() {
            is_any = false;
            for turn in 0..count {
                let place = (self.first + turn) % count;
                let Some(lane) = shared.lane(place) else { continue };
                let mut state = lane.locked();
                if !state.is_ready() {
                    state.look();
                }
                for _ in 0..part {
                    if basket.is_full() {
                        break;
                    }
                    let Some(arrival) = state.take() else { break };
                    is_any = true;
                    let lane = (place, &mut *state);
                    arrive::accept(shared, lane, &mut table, arrival, now, &mut errands)
                        .into_iter()
                        .for_each(|delivery| basket.push(delivery));
                }
            }
        }
        drop(table);
        self.first = (self.first + 1) % count.max(1);
        errands::run(shared, errands);
        basket.deliveries
    }

    /// Until there may be something to take, or to do.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn wait(&mut self, shared: &Arc<Shared>) {
        let (has_room, due) = {
            let table = locked(&shared.table);
            (table.handed() < shared.unsettled_max, table.due())
        };
        tokio::select! {
            () = arrival(shared), if has_room => {}
            () = shared.bell.notified() => {}
            () = until(due) => {}
            () = at(self.shed_again) => {}
            () = shared.closing.cancelled() => {}
            () = shared.wire.lost().cancelled() => {}
        }
    }

    /// Waits for what is under way.
    pub(super) async fn finish(&mut self) {
        if let Some(call) = self.call.take()
            && let Err(error) = call.await
        {
            tracing::debug!(%error, "the server was asked for more while the consumer was closed");
        }
    }
}

/// Until something comes on any channel, or one of them needs something.
async fn arrival(shared: &Shared) {
    poll_fn(|context| {
        let mut is_any = false;
        for lane in &shared.lanes {
            let mut state = lane.locked();
            state.absorb(context);
            is_any |= state.is_ready() || state.need().is_some();
        }
        if is_any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Until then by the clock on the wall; for ever where there is no time.
async fn until(due: Option<Timestamp>) {
    match due {
        Some(due) => {
            let now = Timestamp::from_system(SystemTime::now());
            // A timer may ring up to a millisecond early by the other clock.
            sleep_until(Instant::now() + due.since(now) + TIMER).await;
        }
        None => std::future::pending().await,
    }
}

/// The coarseness of timers.
const TIMER: std::time::Duration = std::time::Duration::from_millis(1);

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump").field("first", &self.first).finish_non_exhaustive()
    }
}
