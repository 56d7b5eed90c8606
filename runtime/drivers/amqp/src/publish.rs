//! Publishing: always confirmed, always mandatory, a whole batch on its way at once.
//!
//! A batch has a channel to itself until all of it is confirmed: what the server returns, and the error with which it
//! closes a channel, then belong to that batch and to no other.

mod pool;

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::FutureExt as _;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use rwork_broker::Publish;
use rwork_protocol::service::Error;
use rwork_protocol::{Message, QueueName};

use crate::error::explain;
use crate::handle::Inner;
use crate::marks::Copy;
use crate::{content, dead, declare, delayed};
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

    fn returned(message: BasicReturnMessage) -> Self {
        let delivery = message.delivery;
        Self {
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            properties: delivery.properties,
            body: delivery.data.into(),
        }
    }
}

/// Publishes what the worker or a client sends.
pub(crate) async fn publish(inner: &Inner, batch: Vec<Publish>) -> Result<(), Error> {
    let limit = inner.options.message_bytes_max;
    if let Some(size) = batch.iter().map(|publish| publish.message.size()).find(|size| *size > limit) {
        return Err(Error::TooLarge { limit, size });
    }
    for queue in queues(&batch) {
        inner.broker.declared(inner, &inner.publishing, &queue).await?;
    }
    let mut parcels = Vec::with_capacity(batch.len());
    for publish in batch {
        parcels.push(parcel(inner, publish).await?);
    }
    send(inner, parcels).await
}

/// Those to which something goes directly, once each. What is no queue's name is left to the server.
fn queues(batch: &[Publish]) -> BTreeSet<QueueName> {
    let direct = batch.iter().filter(|publish| publish.route.exchange.is_empty());
    direct.filter_map(|publish| QueueName::new(&publish.route.routing_key).ok()).collect()
}

async fn parcel(inner: &Inner, publish: Publish) -> Result<Parcel, Error> {
    let Publish { route, message, not_before } = publish;
    let Message { body, .. } = &message;
    let body = body.clone();
    let properties = content::write(&message).map_err(|error| Error::Act {
        act: ACT.to_owned(),
        retryable: false,
        source: Box::new(error),
    })?;
    let (exchange, routing_key) = (declare::short(&route.exchange)?, declare::short(&route.routing_key)?);
    let direct = Parcel { exchange, routing_key, properties, body };
    match not_before {
        None => Ok(direct),
        Some(time) => delayed::parcel(inner, &inner.publishing, direct, time).await,
    }
}

/// Publishes all of it and returns when the server has it. What has nowhere to go has its queue made once more.
///
/// # Cancel safety
/// A cancelled call leaves the server with some of it, or all.
pub(crate) async fn send(inner: &Inner, parcels: Vec<Parcel>) -> Result<(), Error> {
    if parcels.is_empty() {
        return Ok(());
    }
    let homeless = once(inner, parcels).await?;
    if homeless.is_empty() {
        return Ok(());
    }
    for parcel in &homeless {
        find_home(inner, parcel).await?;
    }
    match once(inner, homeless).await?.first() {
        None => Ok(()),
        Some(parcel) => Err(unroutable(inner, parcel)),
    }
}

/// Publishes what the server would have sent on by itself, and would have dropped where there is no way.
pub(crate) async fn send_on(inner: &Inner, parcels: Vec<Parcel>) -> Result<(), Error> {
    for parcel in parcels {
        // One at a time: an exchange that is not there must not cost what goes to another.
        let (exchange, routing_key) = (parcel.exchange.clone(), parcel.routing_key.clone());
        match once(inner, vec![parcel]).await {
            Ok(returned) if returned.is_empty() => {}
            Err(error) if error.is_retryable() => return Err(error),
            _ => tracing::debug!(%exchange, %routing_key, "a dead letter has nowhere to go from its queue"),
        }
    }
    Ok(())
}

/// Publishes, and returns what the server has returned.
async fn once(inner: &Inner, parcels: Vec<Parcel>) -> Result<Vec<Parcel>, Error> {
    let lease = inner.broker.pool.take(inner).await?;
    // The first look at each writes it, so that they go in their order and none waits for another's answer.
    let mut waiting = Vec::with_capacity(parcels.len());
    let mut answers = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        let mut answer = Box::pin(write(&lease.channel, parcel));
        match answer.as_mut().now_or_never() {
            Some(answer) => answers.push(answer),
            None => waiting.push(answer),
        }
    }
    for answer in waiting {
        answers.push(answer.await);
    }
    let returned = sort(inner, answers)?;
    lease.give_back();
    Ok(returned.into_iter().map(Parcel::returned).collect())
}

async fn write(channel: &Channel, parcel: Parcel) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let Parcel { exchange, routing_key, properties, body } = parcel;
    channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await
}

/// What was returned, when nothing went wrong.
fn sort(inner: &Inner, answers: Vec<lapin::Result<Confirmation>>) -> Result<Vec<BasicReturnMessage>, Error> {
    let mut returned = Vec::new();
    let (mut failed, mut is_refused) = (None, false);
    for answer in answers {
        match answer {
            Ok(Confirmation::Nack(message)) => {
                is_refused |= message.is_none();
                returned.extend(message);
            }
            Ok(answer) => returned.extend(answer.take_message()),
            // Of many that failed together, the one which says why.
            Err(error) if failed.is_none() || is_telling(&error) => failed = Some(error),
            Err(_) => {}
        }
    }
    match failed {
        Some(error) => Err(explain(inner.publishing.url(), ACT, error)),
        None if is_refused => Err(Error::Act {
            act: format!("{ACT} at {}", inner.publishing.url()),
            retryable: true,
            source: "the server did not keep a message: a queue has its `x-max-length`, or a quorum queue no majority".into(),
        }),
        None => Ok(returned),
    }
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
