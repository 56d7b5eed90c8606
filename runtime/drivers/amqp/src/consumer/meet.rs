//! What the server is asked for so that messages come: a channel, the queue itself, credit.

use std::sync::Arc;

use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use rwork_broker::Error;

use super::lane::{Lane, Need};
use super::table::Place;
use super::{Shared, credit};
use crate::broker::locked;
use crate::error::{explain, reply, reply_code};

/// Sees to it that a lane has what it needs, or that the next look finds what it lacks then.
pub(super) async fn meet(shared: Arc<Shared>, place: usize, need: Need) -> Result<(), Error> {
    let Some(lane) = shared.lane(place) else { return Ok(()) };
    match need {
        Need::Channel => reopen(&shared, place, lane).await,
        Need::Queue => recover(&shared, lane).await,
        Need::Credit(count) => ask_for_more(&shared, place, lane, count).await,
        Need::Less(left) => ask_for_less(&shared, lane, left).await,
    }
}

/// The server has closed the channel: what was held of this queue is no longer ours, and everything else is.
async fn reopen(shared: &Shared, place: usize, lane: &Lane) -> Result<(), Error> {
    shared.check()?;
    tracing::warn!(queue = %lane.queue, "the server closed the queue's channel: what was held of it goes to others");
    let kind = shared.inner.broker.declare(&shared.inner, &shared.inner.consuming, &lane.queue).await?;
    lane.reopen(shared.wire.channel().await?, kind);
    let mut table = locked(&shared.table);
    for receipt in table.find(|held| held.lane == place && matches!(held.place, Place::Lane(_))) {
        table.remove(receipt);
    }
    Ok(())
}

/// The queue was deleted, or its node went down: another one is made, or the same is found elsewhere.
async fn recover(shared: &Shared, lane: &Lane) -> Result<(), Error> {
    shared.check()?;
    tracing::warn!(queue = %lane.queue, "the server ended the consuming: looking for the queue again");
    shared.inner.broker.forget(&lane.queue);
    let kind = shared.inner.broker.declare(&shared.inner, &shared.inner.consuming, &lane.queue).await?;
    lane.locked().recover(kind);
    Ok(())
}

/// A consumer more, with this credit: that of those which are there can't be changed.
async fn ask_for_more(shared: &Shared, place: usize, lane: &Lane, count: u16) -> Result<(), Error> {
    let _one_at_a_time = shared.granting.lock().await;
    // Something may have gone to the shelter since it was decided.
    let rest = credit::rest(&shared.accounts(), shared.budget(), place);
    let count = count.min(u16::try_from(rest).unwrap_or(u16::MAX));
    if count == 0 {
        return Ok(());
    }
    let (channel, number) = {
        let state = lane.locked();
        (state.channel.clone(), state.next_number())
    };
    let queue = ShortString::try_new(lane.queue.as_str()).unwrap_or_default();
    let tag = ShortString::try_new(format!("{} {} {number}", shared.name, shared.id)).unwrap_or_default();
    let begun = async {
        channel.basic_qos(count, BasicQosOptions { global: false }).await?;
        channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await
    };
    match begun.await {
        Ok(stream) => {
            lane.locked().add(stream, count);
            Ok(())
        }
        // Deleted since it was declared: the channel is gone, and the next one has it made again.
        Err(error) if reply_code(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND) => {
            shared.inner.broker.forget(&lane.queue);
            Ok(())
        }
        Err(error) => Err(explain(&shared.wire.url, &format!("consume queue `{}`", lane.queue), error)),
    }
}

/// Consumers less. What they were sent is here when the server says that they are ended, and keeps its place.
pub(super) async fn ask_for_less(shared: &Shared, lane: &Lane, left: usize) -> Result<(), Error> {
    let (channel, tags) = {
        let mut state = lane.locked();
        (state.channel.clone(), state.shed(left))
    };
    for tag in tags {
        if let Err(error) = channel.basic_cancel(tag, BasicCancelOptions::default()).await
            && shared.wire.is_broken()
        {
            return Err(explain(&shared.wire.url, "consume less", error));
        }
    }
    lane.locked().look();
    Ok(())
}
