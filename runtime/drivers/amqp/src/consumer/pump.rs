//! Taking: from the wish for messages to deliveries, and the waiting between.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rwork_broker::{Delivery, Error};
use rwork_protocol::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::arrive::{self, Errands};
use super::lane::Need;
use super::{errands, meet};
use crate::broker::locked;

/// One consumer's taking.
#[derive(Default)]
pub(super) struct Pump {
    /// The queue that is served first next time.
    first: usize,
    /// What the server was asked for. It is kept when whoever began it goes away: the next one goes on with it.
    call: Option<BoxFuture<'static, Result<(), Error>>>,
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
            let Some((place, need)) = need(shared, max) else { return Ok(()) };
            self.call = Some(meet::meet(Arc::clone(shared), place, need).boxed());
        }
    }

    /// What can be handed out now.
    pub(super) fn take(&mut self, shared: &Arc<Shared>, max: usize) -> Vec<Delivery> {
        let now = Timestamp::from_system(SystemTime::now());
        let mut table = locked(&shared.table);
        let room = shared.unsettled_max.saturating_sub(table.handed()).min(max);
        let mut taken = table.take_ready(room, now);
        let mut errands = Errands::default();
        let count = shared.lanes.len();
        // A fair part for each, and what others leave.
        let part = room.div_ceil(count.max(1)).max(1);
        let mut is_any = true;
        while is_any && taken.len() < room {
            is_any = false;
            for turn in 0..count {
                let place = (self.first + turn) % count;
                let Some(lane) = shared.lane(place) else { continue };
                let mut state = lane.locked();
                if !state.is_ready() {
                    state.look();
                }
                for _ in 0..part.min(room - taken.len()) {
                    let Some(arrival) = state.take() else { break };
                    is_any = true;
                    taken.extend(arrive::accept(
                        shared,
                        (place, &mut state),
                        &mut table,
                        arrival,
                        now,
                        &mut errands,
                    ));
                }
            }
        }
        drop(table);
        self.first = (self.first + 1) % count.max(1);
        errands::run(shared, errands);
        taken
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

/// The first lane that lacks something.
fn need(shared: &Shared, max: usize) -> Option<(usize, Need)> {
    shared.lanes.iter().enumerate().find_map(|(place, lane)| {
        let state = lane.locked();
        let wanted = (state.unsettled() + max).min(lane.share);
        // A quarter more than before at least, so that little is not asked often; never more than was agreed on.
        let more = state.credit() + state.credit() / 4;
        let wanted = if wanted > state.credit() { wanted.max(more).min(lane.share) } else { wanted };
        state.need(wanted).map(|need| (place, need))
    })
}

/// Until something comes on any channel, or one of them needs something.
async fn arrival(shared: &Shared) {
    poll_fn(|context| {
        let mut is_any = false;
        for lane in &shared.lanes {
            let mut state = lane.locked();
            state.absorb(context);
            is_any |= state.is_ready() || state.need(0).is_some();
        }
        if is_any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
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
