//! A queue of the consumer's own into which it brings what it holds, without letting go of it.
//!
//! The server closes the channel of a delivery that is unsettled for longer than its `consumer_timeout`, with everything
//! else that is held over it. Long before that a copy is published to the shelter, comes to us over another channel, and
//! the original is acked: a new delivery of the same message, which begins its time anew. A classic queue forgets how
//! often a message was delivered; a copy carries the count.
//!
//! The shelter's messages live no time at all: one that we do not hold, because we died, goes to the queue it came from
//! at once, by the server's own doing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_broker::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::arrive::fingerprint;
use super::bring::{bring_handed, give_back};
use super::lane::Lane;
use super::table::{Place, Stage};
use super::{Ends, Shared};
use crate::broker::locked;
use crate::declare::Kind;
use crate::error::explain;
use crate::marks;

/// The server forgets a shelter that nobody has used for so long, in milliseconds. It needs none to send its messages back.
const EXPIRES_MS: i64 = 600_000;
/// When a delivery is brought to the shelter, in parts of the server's limit: the server looks once a minute, and so do we.
const PATIENCE: (u32, u32) = (4, 5);
/// Looks within that limit.
const LOOKS: u32 = 20;
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(60);

/// The shelters of a consumer, one for each queue, made when they are needed.
#[derive(Debug)]
pub(super) struct Shelters {
    /// Each held for one look.
    made: Vec<Mutex<Option<Arc<Shelter>>>>,
    /// Held while one is made, so that it is made once.
    making: tokio::sync::Mutex<()>,
    /// Copies that have not arrived, by receipt, and of which queue they are. Held for one look.
    under_way: Mutex<HashMap<u64, usize>>,
    /// Somebody waits for a place.
    is_wanted: AtomicBool,
    /// Rung when a place may be free.
    pub(super) freed: Notify,
}

#[derive(Debug)]
pub(super) struct Shelter {
    pub(super) name: ShortString,
    channel: Channel,
    /// Copies that have arrived and are not settled.
    held: AtomicUsize,
}

impl Shelters {
    pub(super) fn new(count: usize) -> Self {
        Self {
            made: (0..count).map(|_| Mutex::default()).collect(),
            making: tokio::sync::Mutex::default(),
            under_way: Mutex::default(),
            is_wanted: AtomicBool::new(false),
            freed: Notify::new(),
        }
    }

    /// Copies that the server has or will have unacked.
    pub(super) fn held(&self) -> usize {
        let open = self.all().into_iter().filter(|shelter| shelter.is_open());
        let arrived: usize = open.map(|shelter| shelter.held.load(Ordering::Relaxed)).sum();
        arrived + locked(&self.under_way).len()
    }

    /// One place is kept for whoever waits, or not any more.
    pub(super) fn want(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
    }

    /// How many places are not to be given away.
    pub(super) fn kept(&self) -> usize {
        usize::from(self.is_wanted.load(Ordering::Relaxed))
    }

    pub(super) fn is_any_under_way(&self) -> bool {
        !locked(&self.under_way).is_empty()
    }

    /// Copies of these are published now.
    pub(super) fn begin(&self, place: usize, receipts: &BTreeSet<u64>) {
        locked(&self.under_way).extend(receipts.iter().map(|receipt| (*receipt, place)));
    }

    /// They were not, or are of no use.
    pub(super) fn abandon<'a>(&self, receipts: impl IntoIterator<Item = &'a u64>) {
        let mut under_way = locked(&self.under_way);
        for receipt in receipts {
            under_way.remove(receipt);
        }
        drop(under_way);
        self.freed.notify_waiters();
    }

    fn under_way_of(&self, place: usize) -> Vec<u64> {
        let under_way = locked(&self.under_way);
        under_way.iter().filter(|(_, of)| **of == place).map(|(receipt, _)| *receipt).collect()
    }

    /// The one of a queue, if it was made and its channel lives.
    fn get(&self, place: usize) -> Option<Arc<Shelter>> {
        let shelter = locked(self.made.get(place)?).clone();
        shelter.filter(|shelter| shelter.is_open())
    }

    fn put(&self, place: usize, shelter: Arc<Shelter>) {
        if let Some(made) = self.made.get(place) {
            *locked(made) = Some(shelter);
        }
    }

    /// Those that were made.
    fn all(&self) -> Vec<Arc<Shelter>> {
        self.made.iter().filter_map(|made| locked(made).clone()).collect()
    }
}

impl Shelter {
    fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    fn ack(&self, tag: u64) {
        if let Some(Err(error)) =
            self.channel.basic_ack(tag, BasicAckOptions { multiple: false }).now_or_never()
        {
            tracing::debug!(%error, "a copy could not be settled: it goes back to its queue");
        }
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The shelter of a queue, made where it is missing.
pub(super) async fn open(shared: &Arc<Shared>, place: usize, lane: &Lane) -> Result<Arc<Shelter>, Error> {
    let _one_at_a_time = shared.shelters.making.lock().await;
    if let Some(shelter) = shared.shelters.get(place) {
        return Ok(shelter);
    }
    let name = ShortString::try_new(format!("rwork.held.{}.{place}", shared.id)).unwrap_or_default();
    let channel = shared.wire.channel().await?;
    let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let begun = async {
        channel.queue_declare(name.clone(), declare, arguments(lane)).await?;
        let consume = BasicConsumeOptions::default();
        channel.basic_consume(name.clone(), ShortString::default(), consume, FieldTable::default()).await
    };
    let act = format!("hold messages of queue `{}`", lane.queue);
    let stream = begun.await.map_err(|error| explain(&shared.wire.url, &act, error))?;
    let shelter = Arc::new(Shelter { name, channel, held: AtomicUsize::new(0) });
    let (keeper, sheltered) = (Arc::downgrade(shared), Arc::downgrade(&shelter));
    let gone = shared.gone.clone();
    shared.tasks.spawn(async move {
        let read = follow(keeper.clone(), sheltered, stream);
        tokio::select! {
            () = read => {
                if let Some(shared) = keeper.upgrade() {
                    lose(&shared, place);
                }
            }
            () = gone.cancelled() => {}
        }
    });
    shared.shelters.put(place, Arc::clone(&shelter));
    Ok(shelter)
}

fn arguments(lane: &Lane) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let arguments: BTreeMap<ShortString, AMQPValue> = [
        // A quorum queue would not deliver what lives no time, and may be the virtual host's default.
        ("x-queue-type".into(), text("classic")),
        ("x-message-ttl".into(), AMQPValue::LongLongInt(0)),
        ("x-dead-letter-exchange".into(), text("")),
        ("x-dead-letter-routing-key".into(), text(lane.queue.as_str())),
        ("x-expires".into(), AMQPValue::LongLongInt(EXPIRES_MS)),
    ]
    .into();
    arguments.into()
}

/// Takes in what arrives, until the channel ends.
async fn follow(shared: Weak<Shared>, shelter: Weak<Shelter>, mut stream: lapin::Consumer) {
    while let Some(Ok(delivery)) = stream.next().await {
        let (Some(shared), Some(shelter)) = (shared.upgrade(), shelter.upgrade()) else { return };
        let tag = delivery.delivery_tag;
        let (_, marks) = marks::read(delivery.properties);
        shelter.held.fetch_add(1, Ordering::Relaxed);
        let moved = marks.held.and_then(|receipt| locked(&shared.table).end_move(receipt, tag));
        match moved {
            Some((place, Place::Lane(tag))) => {
                if let Some(lane) = shared.lane(place) {
                    lane.locked().end(&Ends { acks: vec![tag], ..Ends::default() });
                }
            }
            Some((_, Place::Shelter(old))) => shelter.ack(old),
            // The original was settled while its copy was on the way.
            None => shelter.ack(tag),
        }
        // Both were counted until now, and one of them is settled.
        shared.shelters.abandon(&marks.held);
        shared.bell.notify_one();
    }
}

/// The shelter has ended: copies that were on their way to it went where they came from, and the originals are ours still.
fn lose(shared: &Shared, place: usize) {
    let lost = shared.shelters.under_way_of(place);
    shared.shelters.abandon(&lost);
    let mut table = locked(&shared.table);
    let (untaken, taken): (Vec<u64>, Vec<u64>) =
        lost.into_iter().partition(|receipt| table.is_awaiting_move(*receipt));
    taken.into_iter().for_each(|receipt| table.abandon_move(receipt));
    drop(table);
    give_back(shared, &untaken);
}

impl Shared {
    /// Writes how deliveries of a shelter end: all of them are published elsewhere or done.
    pub(crate) fn ack_sheltered(&self, place: usize, tags: &[u64]) {
        if let Some(shelter) = self.shelters.get(place).filter(|_| !tags.is_empty()) {
            tags.iter().for_each(|tag| shelter.ack(*tag));
        }
        self.shelters.freed.notify_waiters();
    }

    /// Whether what is in the shelter can still be settled.
    pub(crate) fn has_shelter(&self, place: usize) -> bool {
        self.shelters.get(place).is_some()
    }

    /// Their channels, to be closed.
    pub(super) fn shelter_channels(&self) -> Vec<Channel> {
        self.shelters.all().iter().map(|shelter| shelter.channel.clone()).collect()
    }

    /// Takes the shelters away; only what is empty.
    pub(super) async fn leave_shelters(&self) {
        for shelter in self.shelters.all() {
            let options = QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() };
            if let Err(error) = shelter.channel.queue_delete(shelter.name.clone(), options).await {
                tracing::debug!(%error, "a queue of our own stays until the server forgets it");
            }
        }
    }
}

/// Looks again and again whether something is held for too long.
pub(super) fn watch(shared: &Arc<Shared>) {
    let limit = shared.inner.options.consumer_timeout;
    if limit.is_zero() {
        return;
    }
    let patience = limit / PATIENCE.1 * PATIENCE.0;
    let every = (limit / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
    let (closing, keeper) = (shared.closing.clone(), Arc::downgrade(shared));
    shared.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = sleep(every) => {}
                () = closing.cancelled() => return,
            }
            let Some(shared) = keeper.upgrade() else { return };
            if shared.check().is_err() {
                return;
            }
            if let Err(error) = look(&shared, patience).await {
                tracing::warn!(%error, "messages could not be held on to: trying again before the server takes them");
            }
        }
    });
}

async fn look(shared: &Arc<Shared>, patience: Duration) -> Result<(), Error> {
    let Some(before) = Instant::now().checked_sub(patience) else { return Ok(()) };
    give_back_untaken(shared, before);
    let old = {
        let mut table = locked(&shared.table);
        let old = table.find(|held| held.at <= before && held.stage != Stage::Busy);
        let old: Vec<u64> = old.into_iter().filter(|receipt| !table.is_moving(*receipt)).collect();
        old.iter().for_each(|receipt| table.begin_move(*receipt, None));
        old
    };
    if old.is_empty() {
        return Ok(());
    }
    tracing::debug!(count = old.len(), "holding on to messages beyond the server's `consumer_timeout`");
    let brought = bring_handed(shared, old.clone()).await;
    if brought.is_err() {
        let mut table = locked(&shared.table);
        old.iter().for_each(|receipt| table.abandon_move(*receipt));
    }
    brought
}

/// What nobody has asked for in all that time goes back, to be delivered anew.
fn give_back_untaken(shared: &Shared, before: Instant) {
    for lane in &shared.lanes {
        let mut state = lane.locked();
        state.look();
        while state.is_ready() && state.waits_since().is_some_and(|since| since <= before) {
            let Some(arrival) = state.take() else { break };
            if state.kind == Kind::Classic {
                shared.inner.broker.release(fingerprint(&arrival.properties, &arrival.body));
            }
            let tag = state.tag(arrival.tag);
            state.end(&Ends { requeues: vec![tag], ..Ends::default() });
        }
        drop(state);
    }
    // Whoever waits for a message is told of the next one by whoever looked last.
    shared.bell.notify_one();
}
