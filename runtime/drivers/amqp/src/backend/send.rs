//! The worker's half: results on their way.

use futures_util::FutureExt;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use rwork_backend::{Error, Store};

use crate::error::explain;
use crate::handle::Inner;

const ACT: &str = "send results";
/// Gone with a restart of the server, as Celery's are.
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// A result as a message.
struct Parcel {
    queue: ShortString,
    properties: BasicProperties,
    body: bytes::Bytes,
}

/// Publishes a batch and returns when the server has it. A client that is gone is not our error: its results go nowhere.
pub(super) async fn send(inner: &Inner, batch: &[Store]) -> Result<(), Error> {
    let mut parcels = Vec::with_capacity(batch.len());
    for store in batch {
        parcels.extend(parcel(inner, store)?);
    }
    if parcels.is_empty() {
        return Ok(());
    }
    let lease = inner.broker.pool.take(inner).await?;
    // The first look at each writes it: they go in their order, and none waits for another's answer.
    let mut waiting = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        let mut answer = Box::pin(write(&lease.channel, parcel));
        match answer.as_mut().now_or_never() {
            Some(answer) => judge(inner, answer)?,
            None => waiting.push(answer),
        }
    }
    for answer in waiting {
        judge(inner, answer.await)?;
    }
    lease.give_back();
    Ok(())
}

fn parcel(inner: &Inner, store: &Store) -> Result<Option<Parcel>, Error> {
    let Some(queue) = store.reply_to.as_deref().filter(|queue| !queue.is_empty()) else { return Ok(None) };
    let (id, limit) = (store.record.task_id.as_str(), inner.options.message_bytes_max);
    let body = store.record.encode();
    if body.len() > limit {
        return Err(Error::TooLarge { limit, size: body.len() });
    }
    let (Ok(queue), Ok(correlation_id)) = (
        ShortString::try_new(queue),
        ShortString::try_new(store.correlation_id.as_deref().filter(|id| !id.is_empty()).unwrap_or(id)),
    ) else {
        // No such queue can exist on AMQP: whoever asked waits elsewhere, or not at all.
        tracing::warn!(id, "no result is sent: `reply_to` or `correlation_id` is longer than 255 bytes");
        return Ok(None);
    };
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(if inner.options.result_persistent { PERSISTENT } else { TRANSIENT })
        .with_priority(0)
        .with_correlation_id(correlation_id);
    Ok(Some(Parcel { queue, properties, body }))
}

async fn write(channel: &Channel, parcel: Parcel) -> lapin::Result<Confirmation> {
    let Parcel { queue, properties, body } = parcel;
    let exchange = ShortString::default();
    channel.basic_publish(exchange, queue, BasicPublishOptions::default(), &body, properties).await?.await
}

fn judge(inner: &Inner, answer: lapin::Result<Confirmation>) -> Result<(), Error> {
    let url = inner.publishing.url();
    match answer {
        Ok(Confirmation::Nack(_)) => Err(Error::Act {
            act: format!("{ACT} at {url}"),
            retryable: true,
            source: "the server did not keep a result".into(),
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(explain(url, ACT, error)),
    }
}
