//! Commits: records, follow-ups and the end of a delivery in one step, many of them in one round trip.

mod transaction;

use std::time::SystemTime;

use rwork_backend::Store;
use rwork_broker::{
    Batch, Commit, Committed, Disposition, Ending, Part, Publish, Receipt, Refusal, Settlement,
};
use rwork_protocol::service::Error;
use rwork_protocol::{QueueName, Timestamp};

use crate::backend::expiry_ms;
use crate::bindings::Bindings;
use crate::broker::locked;
use crate::consumer::Shared;
use crate::dead_letters;
use crate::delayed::Parking;
use crate::deliveries::{Deliveries, Held};
use crate::publish::{direct_queue, posts};
use rwork_protocol::envelope::{self, Malformed};

pub(crate) use transaction::{By, End, Entry, Item, random, transact};

/// Deliveries given back by one call when a consumer ends.
const RELEASE_MAX: usize = 500;

/// Commits a batch for a consumer.
pub(crate) async fn commit(shared: &Shared, batch: &Batch) -> Result<Vec<Committed>, Error> {
    let follow_ups = || batch.commits.iter().flat_map(|commit| &commit.publish);
    let exchanges = follow_ups().map(|publish| publish.route.exchange.as_str());
    let bindings = Bindings::read(&shared.inner, exchanges).await?;
    let direct: Vec<QueueName> = follow_ups().filter_map(direct_queue).collect();
    let unbound: Vec<QueueName> = shared.inner.broker.unbound(direct.iter()).into_iter().cloned().collect();
    let items = {
        let now = Timestamp::from_system(SystemTime::now());
        let deliveries = locked(&shared.deliveries);
        let context = Context { shared, deliveries: &deliveries, bindings: &bindings, now };
        batch.commits.iter().map(|commit| context.item(commit)).collect::<Vec<_>>()
    };
    let committed = transact_as(shared, batch.number, &items, &unbound).await?;
    shared.inner.broker.bind(&unbound);
    let mut deliveries = locked(&shared.deliveries);
    for (commit, committed) in batch.commits.iter().zip(&committed) {
        note(&mut deliveries, &commit.ending, committed);
    }
    Ok(committed)
}

/// Calls the script for a consumer, over its present line.
async fn transact_as(
    shared: &Shared,
    number: u64,
    items: &[Item],
    unbound: &[QueueName],
) -> Result<Vec<Committed>, Error> {
    let _under_way = shared.under_way();
    let token = shared.token();
    let by = By { consumer: &shared.id, token: &token, number };
    let committed = transact(&shared.inner, shared.results.as_deref(), by, items, unbound).await;
    // An item's own fault is its own answer: what fails all of them is for somebody to mend.
    match committed {
        Ok(committed) => committed.ok_or_else(|| shared.lease_lost()),
        Err(Error::Act { act, source, .. }) => Err(Error::Act { act, retryable: true, source }),
        Err(error @ Error::Refused { .. }) if refuses_all(shared, by).await => {
            let act = format!("commit at {}", shared.inner.url);
            Err(Error::Act { act, retryable: true, source: Box::new(error) })
        }
        Err(error) => Err(error),
    }
}

/// True if a commit of nothing is refused as well: then no item is to blame, and all of them wait until somebody has mended
/// the cause.
async fn refuses_all(shared: &Shared, by: By<'_>) -> bool {
    let nothing = transact(&shared.inner, None, By { number: 0, ..by }, &[], &[]).await;
    matches!(nothing, Err(Error::Refused { .. }))
}

/// Notes what an answer means for the delivery.
fn note(deliveries: &mut Deliveries, ending: &Ending, committed: &Committed) {
    match (ending, committed) {
        (_, Committed::Refused(_)) | (Ending::Unfenced | Ending::Holds(_), Committed::Done) => {}
        (Ending::Starting(receipt), Committed::Done) => deliveries.start(*receipt),
        (ending, _) => ending.receipt().into_iter().for_each(|receipt| deliveries.remove(receipt)),
    }
}

/// Keeps what is no message as dead letters.
pub(crate) async fn bury(shared: &Shared, malformed: &[(Receipt, Malformed)]) -> Result<(), Error> {
    let at = Timestamp::from_system(SystemTime::now());
    let items: Vec<Item> = {
        let deliveries = locked(&shared.deliveries);
        let bury = |(receipt, why): &(Receipt, Malformed)| {
            let held = deliveries.get(*receipt)?;
            tracing::warn!(error = %why, queue = shared.sources.name(held.queue), "a list element is no message: it is among the dead letters now");
            let (kind, detail) = ("undecodable".to_owned(), why.to_string());
            let reason = rwork_broker::Reason { kind, detail, worker: shared.name.clone(), at };
            Some(Item::new(end(shared, held, &Disposition::DeadLetter(reason), at), shared.tag(held)))
        };
        malformed.iter().filter_map(bury).collect()
    };
    transact_as(shared, 0, &items, &[]).await?;
    let mut deliveries = locked(&shared.deliveries);
    malformed.iter().for_each(|(receipt, _)| deliveries.remove(*receipt));
    Ok(())
}

/// Gives back all that is held, the last taken first, so that the first taken is the first served. Those that may have
/// begun are marked.
pub(crate) async fn release(shared: &Shared, started: &[Receipt]) -> Result<(), Error> {
    let receipts = locked(&shared.deliveries).receipts();
    for part in receipts.rchunks(RELEASE_MAX) {
        let items: Vec<Item> = {
            let deliveries = locked(&shared.deliveries);
            let release = |receipt: &Receipt| {
                let held = deliveries.get(*receipt)?;
                let list = shared.inner.broker.keys.list(shared.sources.name(held.queue), held.step);
                let envelope = match started.contains(receipt) {
                    true => marked(held, held.next_count()),
                    false => held.envelope.clone(),
                };
                Some(Item { has_starts: true, ..Item::new(End::Head { list, envelope }, shared.tag(held)) })
            };
            part.iter().filter_map(release).collect()
        };
        transact_as(shared, 0, &items, &[]).await?;
        let mut deliveries = locked(&shared.deliveries);
        part.iter().for_each(|receipt| deliveries.remove(*receipt));
    }
    Ok(())
}

/// What items are made from.
struct Context<'a> {
    shared: &'a Shared,
    deliveries: &'a Deliveries,
    bindings: &'a Bindings,
    now: Timestamp,
}

impl Context<'_> {
    fn item(&self, commit: &Commit) -> Item {
        let (end, tag, has_starts) = self.end(&commit.ending);
        let mut item = Item { has_starts, ..Item::new(end, tag) };
        if let Err(refusal) = self.fill(&mut item, commit) {
            item = Item::new(End::Refused(refusal), String::new());
        }
        item
    }

    fn end(&self, ending: &Ending) -> (End, String, bool) {
        let Some(receipt) = ending.receipt() else { return (End::Free, String::new(), false) };
        // No entry has this tag: lost.
        let Some(held) = self.deliveries.get(receipt) else { return (End::Hold, String::new(), false) };
        let end = match ending {
            Ending::Settle(Settlement { disposition, .. }) => end(self.shared, held, disposition, self.now),
            Ending::Starting(_) => End::Start(held.delivery_count),
            Ending::Holds(_) | Ending::Unfenced => End::Hold,
        };
        (end, self.shared.tag(held), held.is_started || held.delivery_count > 1)
    }

    fn fill(&self, item: &mut Item, commit: &Commit) -> Result<(), Refusal> {
        item.records = commit.records.iter().map(|store| self.entry(store)).collect::<Result<_, _>>()?;
        let post = |publish: &Publish| {
            posts(&self.shared.inner, self.bindings, publish, self.now)
                .map_err(|error| Refusal { part: Part::FollowUp, why: describe(&error) })
        };
        for publish in &commit.publish {
            item.posts.extend(post(publish)?);
        }
        Ok(())
    }

    fn entry(&self, store: &Store) -> Result<Entry, Refusal> {
        let refuse = |why: String| Refusal { part: Part::Record, why };
        let results = self.shared.results.as_deref();
        let results = results.ok_or_else(|| refuse("results are not kept on this server".to_owned()))?;
        let (value, limit) = (store.record.encode(), results.inner.options.record_bytes_max);
        if value.len() > limit {
            return Err(refuse(format!("expected a record of at most {limit} bytes, got {}", value.len())));
        }
        Ok(Entry {
            key: results.inner.result_keys.record(&store.record.task_id),
            expiry_ms: expiry_ms(store),
            is_ready: store.record.status.is_ready(),
            value,
        })
    }
}

/// How a disposition is done here.
fn end(shared: &Shared, held: &Held, disposition: &Disposition, now: Timestamp) -> End {
    let (keys, queue) = (&shared.inner.broker.keys, shared.sources.name(held.queue));
    let list = || keys.list(queue, held.step);
    match disposition {
        Disposition::Ack => End::Ack,
        Disposition::Requeue => {
            End::Back { list: list(), envelope: marked(held, held.delivery_count.saturating_add(1)) }
        }
        Disposition::Release => End::Head { list: list(), envelope: held.envelope.clone() },
        Disposition::Interrupt => End::Head { list: list(), envelope: marked(held, held.delivery_count) },
        Disposition::Delay(until) => {
            let parking = Parking::until(keys, *until, now, queue, held.step, &held.envelope);
            parking.map_or_else(|| End::Back { list: list(), envelope: held.envelope.clone() }, End::Park)
        }
        Disposition::DeadLetter(reason) => End::Dead {
            queue: queue.to_owned(),
            letter: dead_letters::write(queue, held.delivery_count, reason, &held.envelope),
        },
    }
}

/// The envelope of a message that may have begun. It was read when it came: marking it can't fail. If it did, an unmarked one
/// is better than none.
fn marked(held: &Held, count: u32) -> bytes::Bytes {
    envelope::redelivered(&held.envelope, count).unwrap_or_else(|_| held.envelope.clone())
}

/// One line with its cause.
fn describe(error: &Error) -> String {
    let source = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
    format!("{error}{source}").replace('\n', " ")
}
