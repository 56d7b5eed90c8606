//! What becomes of a message that has come: handed out, held back for what is left of a second, sent on a way of its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use rwork_broker::{Delivery, Receipt};
use rwork_protocol::{Message, Timestamp};

use super::Shared;
use super::lane::{Arrival, State};
use super::table::{Held, Place, Stage, Table};
use crate::declare::Kind;
use crate::{content, delayed, marks};

/// The delay that comes with whole seconds, and some for clocks: a message that is earlier than this waits in the broker.
const HOLD_MAX: Duration = Duration::from_millis(1500);

/// Messages that can't be handed out before they have been published once more.
#[derive(Debug, Default)]
pub(super) struct Errands {
    /// Far too early: back to delayed delivery.
    pub(super) early: Vec<(u64, Timestamp)>,
    /// Delivered before, which must be written down before it is so once more.
    pub(super) recount: Vec<u64>,
}

/// Takes a message in; `None`: it is not to be handed out now.
pub(super) fn accept(
    shared: &Shared,
    (place, state): (usize, &mut State),
    table: &mut Table,
    arrival: Arrival,
    now: Timestamp,
    errands: &mut Errands,
) -> Option<Delivery> {
    let lane = shared.lanes.get(place)?;
    let Arrival { tag, at, redelivered, properties, body, .. } = arrival;
    let (properties, marks) = marks::read(properties);
    if marks.server_count.is_some() {
        state.kind = Kind::Quorum;
    }
    let body = Bytes::from(body);
    let receipt = table.next_receipt();
    let mut delivery_count = marks.delivery_count();
    let is_early = marks.not_before.filter(|time| *time > now);
    // A classic queue tells that there was an earlier delivery and forgets how many.
    let is_uncounted = state.kind == Kind::Classic
        && redelivered
        && is_early.is_none()
        && !shared.inner.broker.was_released(fingerprint(&properties, &body));
    delivery_count += u32::from(is_uncounted);
    let delivery = Delivery {
        message: Message { body: body.clone(), ..content::read(&properties, Vec::new()) },
        queue: lane.queue.clone(),
        redelivered: redelivered || delivery_count > 1,
        delivery_count,
        receipt: Receipt(receipt),
    };
    let stage = match is_early {
        Some(_) => Stage::Hidden,
        None if is_uncounted => Stage::Busy,
        None => Stage::Handed,
    };
    let here = Place::Lane(state.tag(tag));
    table.insert(receipt, Held { lane: place, place: here, stage, properties, body, delivery_count, at });
    match is_early {
        Some(time) if time.since(now) > HOLD_MAX && delayed::can_hold(lane.queue.as_str()) => {
            errands.early.push((receipt, time));
            None
        }
        Some(time) => {
            table.hide(receipt, time, delivery);
            None
        }
        None if is_uncounted => {
            table.begin_move(receipt, Some(delivery));
            errands.recount.push(receipt);
            None
        }
        None => Some(delivery),
    }
}

/// Tells a message that comes again from others of its queue.
pub(crate) fn fingerprint(properties: &BasicProperties, body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    properties.correlation_id().as_ref().map(ShortString::as_str).hash(&mut hasher);
    properties.message_id().as_ref().map(ShortString::as_str).hash(&mut hasher);
    body.hash(&mut hasher);
    hasher.finish()
}
