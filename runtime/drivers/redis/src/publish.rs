//! Publishing: where a message goes, and a batch in one command or one script call.

use std::time::SystemTime;

use bytes::Bytes;
use rwork_broker::{Committed, Publish};
use rwork_protocol::service::Error;
use rwork_protocol::{QueueName, Timestamp};
use uuid::Uuid;

use crate::bindings::Bindings;
use crate::commit::{By, End, Item, transact};
use crate::delayed::Parking;
use crate::handle::Inner;
use rwork_protocol::envelope;

/// A server drops a client that sends more than 1 GB at once.
const BATCH_BYTES_MAX: usize = 900 << 20;
/// Redis' own limit for one value is 512 MiB; an envelope is kept inside an entry of `unacked`.
const ENVELOPE_BYTES_MAX: usize = 511 << 20;
const ACT: &str = "publish messages";

/// One message on its way into one queue.
#[derive(Debug)]
pub(crate) enum Post {
    Now { list: String, envelope: Bytes },
    Later(Parking),
}

/// Publishes a batch: one outcome for each message.
///
/// # Errors
/// On any, nothing is known of the batch; on [`Error::Full`] nothing was written.
pub(crate) async fn publish(inner: &Inner, batch: &[Publish]) -> Result<Vec<Result<(), Error>>, Error> {
    let bindings = Bindings::read(inner, batch.iter().map(|publish| publish.route.exchange.as_str())).await?;
    let now = Timestamp::from_system(SystemTime::now());
    let mut outcomes: Vec<Result<Vec<Post>, Error>> =
        batch.iter().map(|publish| posts(inner, &bindings, publish, now)).collect();
    let size = outcomes.iter().flatten().flatten().map(Post::size).sum::<usize>();
    if size > BATCH_BYTES_MAX {
        return Err(Error::TooLarge { limit: BATCH_BYTES_MAX, size });
    }
    let direct: Vec<QueueName> = batch.iter().filter_map(direct_queue).collect();
    let unbound: Vec<QueueName> = inner.broker.unbound(direct.iter()).into_iter().cloned().collect();
    let items: Vec<Item> = outcomes
        .iter_mut()
        .flatten()
        .map(|posts| Item { posts: std::mem::take(posts), ..Item::new(End::Free, String::new()) })
        .collect();
    let mut sent = send(inner, &items, &unbound).await?.into_iter();
    inner.broker.bind(&unbound);
    let outcome = |(outcome, publish): (Result<Vec<Post>, Error>, &Publish)| {
        outcome.and_then(|_| match sent.next() {
            Some(Committed::Refused(refusal)) => Err(refuse(inner, publish, refusal.why.into())),
            _ => Ok(()),
        })
    };
    Ok(outcomes.into_iter().zip(batch).map(outcome).collect())
}

async fn send(inner: &Inner, items: &[Item], unbound: &[QueueName]) -> Result<Vec<Committed>, Error> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    if unbound.is_empty()
        && let Some(push) = push(items)
    {
        match inner.commands.command(ACT, &push).await {
            // The script answers for each.
            Err(Error::Act { retryable: false, .. }) => {}
            pushed => return pushed.map(|_| vec![Committed::Done; items.len()]),
        }
    }
    let nobody = By { consumer: "", token: "", number: 0 };
    Ok(transact(inner, None, nobody, items, unbound).await?.unwrap_or_default())
}

/// The command that does it where all goes into one list: atomic by itself, and several times as fast, since Lua would look
/// at every byte.
fn push(items: &[Item]) -> Option<redis::Cmd> {
    let mut push = redis::cmd("LPUSH");
    let mut only: Option<&str> = None;
    for post in items.iter().flat_map(|item| &item.posts) {
        let Post::Now { list, envelope } = post else { return None };
        if only.is_none() {
            push.arg(list);
        } else if only != Some(list.as_str()) {
            return None;
        }
        only = Some(list);
        push.arg(&envelope[..]);
    }
    only.map(|_| push)
}

/// Ways of a message into its queues.
///
/// # Errors
/// When it can never be published: too large, without a queue, with headers that are no JSON object.
pub(crate) fn posts(
    inner: &Inner,
    bindings: &Bindings,
    publish: &Publish,
    now: Timestamp,
) -> Result<Vec<Post>, Error> {
    let (message, keys) = (&publish.message, &inner.broker.keys);
    let (exchange, routing_key) = (&publish.route.exchange, &publish.route.routing_key);
    let (limit, size) = (inner.options.message_bytes_max, message.size());
    if size > limit {
        return Err(Error::TooLarge { limit, size });
    }
    if exchange.is_empty() {
        QueueName::new(routing_key).map_err(|error| refuse(inner, publish, error.into()))?;
    }
    let queues = bindings.route(inner, exchange, routing_key);
    if queues.is_empty() {
        return Err(refuse(inner, publish, Unroutable.into()));
    }
    // One tag for all queues, as kombu has it.
    let tag = Uuid::new_v4().to_string();
    let envelope = envelope::write(message, exchange, routing_key, &tag)
        .map_err(|error| refuse(inner, publish, error.into()))?;
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return Err(Error::TooLarge { limit: ENVELOPE_BYTES_MAX, size: envelope.len() });
    }
    let envelope = Bytes::from(envelope);
    let step = keys.step(message.properties.priority);
    let post = |queue: String| {
        let until = |until| Parking::until(keys, until, now, &queue, step, &envelope);
        match publish.not_before.and_then(until) {
            Some(parking) => Post::Later(parking),
            None => Post::Now { list: keys.list(&queue, step), envelope: envelope.clone() },
        }
    };
    Ok(queues.into_iter().map(post).collect())
}

/// The queue that a message names by itself.
pub(crate) fn direct_queue(publish: &Publish) -> Option<QueueName> {
    let route = &publish.route;
    route.exchange.is_empty().then(|| QueueName::new(&route.routing_key).ok()).flatten()
}

impl Post {
    fn size(&self) -> usize {
        match self {
            Self::Now { envelope, .. } => envelope.len(),
            Self::Later(parking) => parking.value.len(),
        }
    }
}

fn refuse(inner: &Inner, publish: &Publish, source: rwork_protocol::service::BoxError) -> Error {
    let (exchange, routing_key) = (&publish.route.exchange, &publish.route.routing_key);
    let act = format!("publish to exchange {exchange:?} with routing key {routing_key:?} at {}", inner.url);
    Error::Act { act, retryable: false, source }
}

/// kombu drops such a message without a word.
#[derive(Debug, thiserror::Error)]
#[error("no queue is bound to it; bind one, or set the transport option `deadletter_queue`")]
struct Unroutable;
