//! The end of a consumer: everything that it holds goes back, uncounted where the server can be told so.

use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::Channel;
use lapin::options::BasicCancelOptions;
use lapin::protocol::constants::REPLY_SUCCESS;
use rwork_broker::{Error, Receipt};
use tokio::time::timeout;

use super::arrive::fingerprint;
use super::table::Place;
use super::{Lane, Shared};
use crate::broker::locked;
use crate::declare::{Kind, short};
use crate::error::explain;
use crate::publish;

/// How long messages that are on their way elsewhere are waited for. A server that is blocked takes nothing for as long as
/// it lacks memory: what does not get there in time is delivered once more.
const PATIENCE: Duration = Duration::from_secs(5);
const BYE: &str = "OK";

/// Gives everything back.
pub(super) async fn leave(shared: &Shared, started: &[Receipt]) -> Result<(), Error> {
    shared.errands.close();
    if timeout(PATIENCE, settled(shared)).await.is_err() {
        tracing::warn!("messages on their way elsewhere were not confirmed in time: they may come twice");
    }
    for lane in &shared.lanes {
        cancel(shared, lane).await?;
    }
    give_back_sheltered(shared, started).await?;
    for (place, lane) in shared.lanes.iter().enumerate() {
        remember(shared, place, lane);
        let channel = lane.locked().channel.clone();
        close(shared, &channel).await?;
    }
    shared.leave_shelters().await;
    for channel in shared.shelter_channels() {
        close(shared, &channel).await?;
    }
    shared.gone.cancel();
    locked(&shared.table).clear();
    Ok(())
}

/// Nothing is on its way elsewhere.
async fn settled(shared: &Shared) {
    shared.errands.wait().await;
    while locked(&shared.table).is_any_moving() && !shared.wire.is_broken() {
        tokio::select! {
            () = shared.bell.notified() => {}
            () = shared.wire.lost().cancelled() => {}
        }
    }
}

/// Nothing comes any more.
async fn cancel(shared: &Shared, lane: &Lane) -> Result<(), Error> {
    let (channel, streams) = {
        let mut state = lane.locked();
        (state.channel.clone(), state.close())
    };
    for stream in streams {
        let cancelled = channel.basic_cancel(stream.tag(), BasicCancelOptions::default()).await;
        if shared.wire.is_broken() {
            return cancelled.map_err(|error| explain(&shared.wire.url, "stop consuming", error));
        }
    }
    Ok(())
}

/// What is in a shelter would count as delivered once it is let go: it is published as it was before, but for what has
/// started, which must be seen to be redelivered.
async fn give_back_sheltered(shared: &Shared, started: &[Receipt]) -> Result<(), Error> {
    let mut parcels = Vec::new();
    let mut tags = vec![Vec::new(); shared.lanes.len()];
    {
        let table = locked(&shared.table);
        for receipt in table.find(|held| matches!(held.place, Place::Shelter(_))) {
            let Some(held) = table.get(receipt) else { continue };
            let (Some(lane), Some(tags)) = (shared.lane(held.lane), tags.get_mut(held.lane)) else {
                continue;
            };
            let has_started = started.contains(&Receipt(receipt));
            let past = held.delivery_count.saturating_sub(u32::from(!has_started));
            parcels.push(publish::again(short(lane.queue.as_str())?, &held.properties, &held.body, past));
            if let Place::Shelter(tag) = held.place {
                tags.push(tag);
            }
        }
    }
    match timeout(PATIENCE, publish::send(&shared.inner, parcels)).await {
        Ok(sent) => sent?,
        Err(_) => {
            tracing::warn!("messages given back were not confirmed in time: they count as delivered");
            return Ok(());
        }
    }
    for (place, tags) in tags.iter().enumerate() {
        shared.ack_sheltered(place, tags);
    }
    Ok(())
}

/// A classic queue will say of what goes back that it was delivered.
fn remember(shared: &Shared, place: usize, lane: &Lane) {
    let table = locked(&shared.table);
    let mut state = lane.locked();
    state.look();
    if state.kind != Kind::Classic {
        return;
    }
    for receipt in table.find(|held| held.lane == place && matches!(held.place, Place::Lane(_))) {
        if let Some(held) = table.get(receipt) {
            shared.inner.broker.release(fingerprint(&held.properties, &held.body));
        }
    }
    while let Some(arrival) = state.take() {
        shared.inner.broker.release(fingerprint(&arrival.properties, &arrival.body));
    }
}

/// With it goes everything that is unsettled on it, back to where it was.
async fn close(shared: &Shared, channel: &Channel) -> Result<(), Error> {
    match channel.close(REPLY_SUCCESS, BYE.into()).await {
        Err(error) if shared.wire.is_broken() => Err(explain(&shared.wire.url, "close a channel", error)),
        // The server had closed it.
        _ => Ok(()),
    }
}

/// The same for whoever can't wait. The server is told as soon as the connection's own thread gets to it.
pub(super) fn abandon(shared: &Shared) {
    shared.gone.cancel();
    // An outage is nobody's outcome. It can't be known of what another process gets.
    if shared.wire.is_broken() {
        shared.lanes.iter().enumerate().for_each(|(place, lane)| remember(shared, place, lane));
    }
    let lanes = shared.lanes.iter().map(|lane| {
        let mut state = lane.locked();
        drop(state.close());
        state.channel.clone()
    });
    for channel in lanes.chain(shared.shelter_channels()) {
        let _ = channel.close(REPLY_SUCCESS, BYE.into()).now_or_never();
    }
}
