//! Looking through a queue without taking anything away. AMQP has no such thing: every message is got, and given back in
//! its old place by closing the channel. Nobody is given those messages meanwhile, so that it is for people's questions,
//! not for the way of a task.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use rwork_protocol::service::Error;
use tokio::sync::MutexGuard;
use tokio::time::sleep;

use crate::error::{explain, reply, reply_code};
use crate::handle::Inner;

/// Messages asked for at once: enough to hide the round trips, few enough for the server to stay even-tempered.
const ASKED_MAX: usize = 500;
/// How often, and after how long, it is asked whether what was given back is there.
const ASKED_BACK: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);
const ACT: &str = "look through a queue";

/// One look. Ends with its channel.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    inner: &'a Inner,
    channel: Channel,
    /// How many of each queue are given back at the end.
    got: BTreeMap<ShortString, u64>,
    /// One look at a time: a second one would see nothing of what the first one holds.
    _alone: MutexGuard<'a, ()>,
}

/// A message that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) queue: ShortString,
    /// To take it away by.
    pub(crate) tag: u64,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl<'a> Look<'a> {
    pub(crate) async fn begin(inner: &'a Inner) -> Result<Self, Error> {
        let alone = inner.broker.looking.lock().await;
        let channel = inner.consuming.channel().await?;
        Ok(Self { inner, channel, got: BTreeMap::new(), _alone: alone })
    }

    /// Messages of a queue, in its order, up to `max`; none where there is no such queue.
    pub(crate) async fn all(&mut self, queue: &ShortString, max: usize) -> Result<Vec<Found>, Error> {
        let count = ready(self.inner, queue).await?.unwrap_or(0);
        let mut left = usize::try_from(count).unwrap_or(usize::MAX).min(max);
        if left < usize::try_from(count).unwrap_or(usize::MAX) {
            tracing::warn!(%queue, count, max, "the queue holds more than is looked at");
        }
        let mut found = Vec::with_capacity(left);
        while left > 0 {
            let asked = left.min(ASKED_MAX);
            let page = self.page(queue, asked).await?;
            let is_end = page.len() < asked;
            left -= asked;
            found.extend(page);
            if is_end {
                break;
            }
        }
        if !found.is_empty() {
            *self.got.entry(queue.clone()).or_default() += found.len() as u64;
        }
        Ok(found)
    }

    async fn page(&self, queue: &ShortString, count: usize) -> Result<Vec<Found>, Error> {
        let mut answers = Vec::with_capacity(count);
        let mut waiting = Vec::with_capacity(count);
        for _ in 0..count {
            let mut answer = Box::pin(self.channel.basic_get(queue.clone(), BasicGetOptions::default()));
            // The first look writes it.
            match answer.as_mut().now_or_never() {
                Some(answer) => answers.push(answer),
                None => waiting.push(answer),
            }
        }
        for answer in waiting {
            answers.push(answer.await);
        }
        let mut found = Vec::with_capacity(count);
        for answer in answers {
            let message = answer.map_err(|error| explain(self.inner.consuming.url(), ACT, error))?;
            found.extend(message.map(|message| Found {
                queue: queue.clone(),
                tag: message.delivery.delivery_tag,
                routing_key: message.delivery.routing_key,
                properties: message.delivery.properties,
                body: message.delivery.data.into(),
            }));
        }
        Ok(found)
    }

    /// Takes one of the found away for good.
    pub(crate) async fn take_away(&mut self, found: &Found) -> Result<(), Error> {
        if let Some(count) = self.got.get_mut(&found.queue) {
            *count = count.saturating_sub(1);
        }
        let taken = self.channel.basic_ack(found.tag, BasicAckOptions { multiple: false }).await;
        taken.map_err(|error| explain(self.inner.consuming.url(), ACT, error))
    }

    /// Gives the others back, and returns when they are there for the next one who looks.
    pub(crate) async fn end(self) -> Result<(), Error> {
        let ended = self.channel.close(REPLY_SUCCESS, "OK".into()).await;
        ended.map_err(|error| explain(self.inner.consuming.url(), ACT, error))?;
        for (queue, given) in &self.got {
            // A quorum queue takes its time. That somebody else takes some meanwhile is no reason to wait for ever.
            for _ in 0..ASKED_BACK {
                if ready(self.inner, queue).await?.is_none_or(|ready| ready >= *given) {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// How many messages of a queue could be delivered now; `None`: there is no such queue.
pub(crate) async fn ready(inner: &Inner, queue: &ShortString) -> Result<Option<u64>, Error> {
    // What is not there costs the channel.
    let channel = inner.consuming.channel().await?;
    match count(&channel, queue).await {
        Ok(count) => Ok(Some(count)),
        Err(error) if reply_code(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND) => Ok(None),
        Err(error) => Err(explain(inner.consuming.url(), &format!("count queue `{queue}`"), error)),
    }
}

/// The same over a channel that is there.
pub(crate) async fn count(channel: &Channel, queue: &ShortString) -> lapin::Result<u64> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(queue.clone(), passive, FieldTable::default()).await?;
    Ok(queue.message_count().into())
}
