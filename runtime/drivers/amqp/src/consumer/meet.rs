//! What the server is asked for so that messages come: a channel, the queue itself, credit.

use std::sync::Arc;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use rwork_broker::Error;

use super::Shared;
use super::lane::{Lane, Need};
use super::table::Place;
use crate::broker::locked;
use crate::error::{explain, reply, reply_code};

/// Sees to it that a lane has what it needs, or that the next look finds what it lacks then.
pub(super) async fn meet(shared: Arc<Shared>, place: usize, need: Need) -> Result<(), Error> {
    let Some(lane) = shared.lane(place) else { return Ok(()) };
    match need {
        Need::Channel => reopen(&shared, place, lane).await,
        Need::Queue => recover(&shared, lane).await,
        Need::Credit(count) => ask_for_more(&shared, lane, count).await,
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
async fn ask_for_more(shared: &Shared, lane: &Lane, count: u16) -> Result<(), Error> {
    let (channel, credit) = {
        let state = lane.locked();
        (state.channel.clone(), state.credit())
    };
    let queue = ShortString::try_new(lane.queue.as_str()).unwrap_or_default();
    let tag = ShortString::try_new(format!("{} {} {credit}", shared.name, shared.id)).unwrap_or_default();
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
