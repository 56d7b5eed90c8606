//! Publishing: always confirmed, always mandatory, a whole batch on its way at once.
//!
//! A batch has a channel to itself until all of it is confirmed: what the server returns, and the error with which it
//! closes a channel, then belong to that batch and to no other.

mod fate;
mod pool;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::maybe_done;
use lapin::options::BasicPublishOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use rwork_broker::Publish;
use rwork_protocol::QueueName;
use rwork_protocol::service::Error;

use crate::error::{explain, reply, reply_code};
use crate::handle::Inner;
use crate::marks::Copy;
use crate::{content, dead, declare, delayed};
pub(crate) use fate::Fate;
pub(crate) use pool::Pool;

const ACT: &str = "publish";

/// One message as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    /// Empty: the default exchange.
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Parcel {
    /// Straight into a queue.
    pub(crate) fn to_queue(queue: ShortString, properties: BasicProperties, body: Bytes) -> Self {
        Self { exchange: ShortString::default(), routing_key: queue, properties, body }
    }
}

/// Publishes what a client or the worker sends; one outcome for each, in order.
pub(crate) async fn publish(inner: &Inner, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error> {
    inner.publishing.wire().await?;
    let mut fates = Vec::with_capacity(batch.len());
    for publish in batch {
        fates.push(Fate::prepared(parcel(inner, publish).await)?);
    }
    deliver(inner, &mut fates).await?;
    Ok(fates.into_iter().map(Fate::outcome).collect())
}

/// The message as it goes over the wire, with its queue made where that is missing. What is no queue's name is left to the
/// server.
pub(crate) async fn parcel(inner: &Inner, publish: Publish) -> Result<Parcel, Error> {
    let Publish { route, message, not_before } = publish;
    let (limit, size) = (inner.options.message_bytes_max, message.size());
    if size > limit {
        return Err(Error::TooLarge { limit, size });
    }
    if route.exchange.is_empty()
        && let Ok(queue) = QueueName::new(&route.routing_key)
    {
        inner.broker.declared(inner, &inner.publishing, &queue).await?;
    }
    let properties = content::write(&message).map_err(|error| Error::Act {
        act: ACT.to_owned(),
        retryable: false,
        source: Box::new(error),
    })?;
    let (exchange, routing_key) = (declare::short(&route.exchange)?, declare::short(&route.routing_key)?);
    let direct = Parcel { exchange, routing_key, properties, body: message.body };
    match not_before {
        None => Ok(direct),
        Some(time) => delayed::parcel(inner, &inner.publishing, direct, time).await,
    }
}

/// Publishes messages that must all be accepted, and returns when the server has them.
///
/// # Cancel safety
/// A cancelled call leaves the server with some of it, or all.
pub(crate) async fn send(inner: &Inner, parcels: Vec<Parcel>) -> Result<(), Error> {
    let mut fates: Vec<Fate> = parcels.into_iter().map(Fate::Ready).collect();
    deliver(inner, &mut fates).await?;
    fates.into_iter().try_for_each(Fate::outcome)
}

/// Publishes messages and returns when the server has answered for each. A message that has nowhere to go has its queue
/// made once more.
///
/// # Errors
/// When the answers of some were lost: those are [`Fate::Unknown`], and what is known of the others stands.
///
/// # Cancel safety
/// A cancelled call leaves the server with some of it, or all.
pub(crate) async fn deliver(inner: &Inner, fates: &mut [Fate]) -> Result<(), Error> {
    round(inner, fates).await?;
    let mut is_any = false;
    for fate in fates.iter_mut() {
        if let Fate::Returned(parcel) = fate {
            *fate = Fate::prepared(find_home(inner, parcel).await.map(|()| parcel.clone()))?;
            is_any |= matches!(fate, Fate::Ready(_));
        }
    }
    if is_any {
        round(inner, fates).await?;
    }
    for fate in fates.iter_mut() {
        if let Fate::Returned(parcel) = fate {
            *fate = Fate::Refused(unroutable(inner, parcel));
        }
    }
    Ok(())
}

/// Publishes what is ready: all together, but for messages with which the server may close the channel.
async fn round(inner: &Inner, fates: &mut [Fate]) -> Result<(), Error> {
    let ready = fates.iter_mut().filter(|fate| matches!(fate, Fate::Ready(_)));
    let (alone, together): (Vec<_>, Vec<_>) = ready.partition(|fate| fate.is_risky());
    once(inner, together).await?;
    for fate in alone {
        once(inner, vec![fate]).await?;
    }
    Ok(())
}

/// Publishes what the server would have sent on by itself, and would have dropped where there is no way.
pub(crate) async fn send_on(inner: &Inner, parcels: Vec<Parcel>) -> Result<(), Error> {
    for parcel in parcels {
        // One at a time: an exchange that is not there must not cost what goes to another.
        let (exchange, routing_key) = (parcel.exchange.clone(), parcel.routing_key.clone());
        let mut fate = Fate::Ready(parcel);
        once(inner, vec![&mut fate]).await?;
        if !matches!(fate, Fate::Kept) {
            tracing::debug!(%exchange, %routing_key, "a dead letter has nowhere to go from its queue");
        }
    }
    Ok(())
}

/// Publishes over one channel.
async fn once(inner: &Inner, fates: Vec<&mut Fate>) -> Result<(), Error> {
    if fates.is_empty() {
        return Ok(());
    }
    let is_delayed = fates.iter().any(|fate| fate.is_delayed());
    let lease = inner.broker.pool.take(inner).await?;
    // The first look at each writes it, so that they go in their order and none waits for another's answer.
    let mut sent = Vec::with_capacity(fates.len());
    for fate in fates {
        let Some(parcel) = fate.depart() else { continue };
        let mut answer = Box::pin(maybe_done(write(&lease.channel, parcel)));
        let _ = answer.as_mut().now_or_never();
        sent.push((fate, answer));
    }
    let mut failed = None;
    for (fate, answer) in &mut sent {
        answer.as_mut().await;
        match answer.as_mut().take_output() {
            Some(Ok(confirmation)) => **fate = Fate::answered(inner, confirmation),
            // Of many that failed together, the one which says why.
            Some(Err(error)) if failed.is_none() || is_telling(&error) => failed = Some(error),
            _ => {}
        }
    }
    let sent = sent.into_iter().map(|(fate, _)| fate);
    match failed {
        None => {
            drop(sent);
            lease.give_back();
            Ok(())
        }
        Some(error) => blame(inner, sent, &error, is_delayed),
    }
}

/// Says of each message without an answer that it was refused, if the error means that.
fn blame<'a>(
    inner: &Inner,
    sent: impl Iterator<Item = &'a mut Fate>,
    error: &lapin::Error,
    is_delayed: bool,
) -> Result<(), Error> {
    let explained = || explain(inner.publishing.url(), ACT, error.clone());
    if is_delayed && reply_code(error).is_some_and(|(code, _)| code == reply::NOT_FOUND) {
        // Somebody deleted the exchange; the next attempt makes it anew.
        inner.broker.forget_delayed();
        return Err(Error::Act { act: ACT.to_owned(), retryable: true, source: Box::new(explained()) });
    }
    if explained().is_retryable() {
        return Err(explained());
    }
    let unanswered = sent.filter(|fate| matches!(fate, Fate::Unknown));
    unanswered.for_each(|fate| *fate = Fate::Refused(explained()));
    Ok(())
}

async fn write(channel: &Channel, parcel: Parcel) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let Parcel { exchange, routing_key, properties, body } = parcel;
    channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await
}

fn is_telling(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(_))
}

/// What was there when we looked last is gone: makes it again.
async fn find_home(inner: &Inner, parcel: &Parcel) -> Result<(), Error> {
    if delayed::is_entrance(&parcel.exchange) {
        inner.broker.forget_delayed();
        return delayed::prepare(inner, &inner.publishing).await;
    }
    if !parcel.exchange.as_str().is_empty() {
        return Err(unroutable(inner, parcel));
    }
    if parcel.routing_key.as_str() == dead::QUEUE {
        return dead::declare(inner, &inner.publishing).await;
    }
    let queue = QueueName::new(parcel.routing_key.as_str()).map_err(|_| unroutable(inner, parcel))?;
    inner.broker.forget(&queue);
    inner.broker.declared(inner, &inner.publishing, &queue).await
}

fn unroutable(inner: &Inner, parcel: &Parcel) -> Error {
    let (exchange, key) = (parcel.exchange.as_str(), parcel.routing_key.as_str());
    Error::Act {
        act: format!("{ACT} to exchange `{exchange}` with routing key `{key}` at {}", inner.publishing.url()),
        retryable: false,
        source: format!("{:?}: no queue is bound there", AMQPSoftError::NOROUTE).into(),
    }
}

/// A copy of a message for the queue from which it came.
pub(crate) fn again(queue: ShortString, properties: &BasicProperties, body: &Bytes, past: u32) -> Parcel {
    Parcel::to_queue(queue, Copy::of(properties).past(past).build(), body.clone())
}
