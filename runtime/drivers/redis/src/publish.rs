//! Publishing: a batch in one command or one script call, all of it or nothing.

use std::time::SystemTime;

use bytes::Bytes;
use rwork_broker::Publish;
use rwork_protocol::service::Error;
use rwork_protocol::{QueueName, Timestamp};
use uuid::Uuid;

use crate::bindings::Bindings;
use crate::envelope;
use crate::handle::Inner;
use crate::keys::Places;
use crate::link::Script;
use crate::settle::Parking;

static PUBLISH: Script = Script::new(include_str!("scripts/publish.lua"));

/// A server drops a client that sends more than 1 GB at once.
const BATCH_BYTES_MAX: usize = 900 << 20;
/// Redis' own limit for one value is 512 MiB; an envelope is kept inside an entry of `unacked`.
const ENVELOPE_BYTES_MAX: usize = 511 << 20;

/// Publishes a batch.
///
/// # Errors
/// On any, nothing was written.
pub(crate) async fn publish(inner: &Inner, batch: &[Publish]) -> Result<(), Error> {
    let limit = inner.options.message_bytes_max;
    for Publish { message, .. } in batch {
        if message.size() > limit {
            return Err(Error::TooLarge { limit, size: message.size() });
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    let bindings = Bindings::read(inner, batch.iter().map(|publish| publish.route.exchange.as_str())).await?;
    let mut posts = Posts::default();
    let now = Timestamp::from_system(SystemTime::now());
    for publish in batch {
        posts.add(inner, &bindings, publish, now)?;
    }
    if posts.size > BATCH_BYTES_MAX {
        return Err(Error::TooLarge { limit: BATCH_BYTES_MAX, size: posts.size });
    }
    declare(inner, &posts.direct).await?;
    posts.send(inner).await
}

/// A batch, sorted by where it goes.
#[derive(Default)]
struct Posts {
    lists: Places,
    /// For each list what is pushed to it, in order.
    now: Vec<Vec<Bytes>>,
    later: Vec<Parking>,
    /// Queues that were named by themselves.
    direct: Vec<QueueName>,
    size: usize,
}

impl Posts {
    fn add(
        &mut self,
        inner: &Inner,
        bindings: &Bindings,
        publish: &Publish,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (exchange, routing_key) = (&publish.route.exchange, &publish.route.routing_key);
        let refuse = |source| Error::Act {
            act: format!(
                "publish to exchange {exchange:?} with routing key {routing_key:?} at {}",
                inner.url
            ),
            retryable: false,
            source,
        };
        if exchange.is_empty() {
            let queue = QueueName::new(routing_key).map_err(|error| refuse(Box::new(error)))?;
            if self.direct.last() != Some(&queue) {
                self.direct.push(queue);
            }
        }
        let queues = bindings.route(inner, exchange, routing_key);
        if queues.is_empty() {
            return Err(refuse(Box::new(Unroutable)));
        }
        // One tag for all queues, as kombu has it.
        let tag = Uuid::new_v4().to_string();
        let message = &publish.message;
        let envelope =
            envelope::write(message, exchange, routing_key, &tag).map_err(|error| refuse(Box::new(error)))?;
        if envelope.len() > ENVELOPE_BYTES_MAX {
            return Err(Error::TooLarge { limit: ENVELOPE_BYTES_MAX, size: envelope.len() });
        }
        let envelope = Bytes::from(envelope);
        let step = inner.broker.keys.step(message.properties.priority);
        for queue in queues {
            self.size += envelope.len();
            let parking = publish
                .not_before
                .and_then(|until| Parking::until(inner, until, now, &queue, step, &envelope));
            match parking {
                Some(parking) => self.later.push(parking),
                None => self.push(inner.broker.keys.list(&queue, step), envelope.clone()),
            }
        }
        Ok(())
    }

    fn push(&mut self, list: String, envelope: Bytes) {
        let place = self.lists.of(list) - 1;
        if self.now.len() <= place {
            self.now.resize_with(place + 1, Vec::new);
        }
        if let Some(envelopes) = self.now.get_mut(place) {
            envelopes.push(envelope);
        }
    }

    async fn send(self, inner: &Inner) -> Result<(), Error> {
        const ACT: &str = "publish messages";
        if let ([list], [envelopes], []) = (self.lists.keys(), &*self.now, &*self.later) {
            // Atomic by itself, and several times as fast: Lua would look at every byte.
            let mut push = redis::cmd("LPUSH");
            push.arg(list);
            for envelope in envelopes {
                push.arg(&**envelope);
            }
            return inner.commands.command(ACT, &push).await.map(drop);
        }
        let Self { lists: mut places, now, later, .. } = self;
        let lists = places.keys().len();
        let later: Vec<(usize, usize, Parking)> = later
            .into_iter()
            .map(|parking| (places.of(parking.delayed.clone()), places.of(parking.parked.clone()), parking))
            .collect();
        let mut call = PUBLISH.call(places.keys());
        call.arg(lists);
        for (place, envelopes) in now.iter().enumerate() {
            call.arg("now").arg(place + 1).arg(envelopes.len());
            for envelope in envelopes {
                call.arg(&**envelope);
            }
        }
        for (delayed, parked, parking) in &later {
            call.arg("later").arg(*delayed).arg(*parked);
            call.arg(&parking.id).arg(&parking.wait_ms).arg(&parking.value);
        }
        inner.commands.script(ACT, &call).await.map(drop)
    }
}

/// Binds queues that this handle has not named before, as Celery declares a queue before it publishes: so that they are
/// known to whoever lists queues, and a named exchange leads to them.
async fn declare(inner: &Inner, queues: &[QueueName]) -> Result<(), Error> {
    let queues = inner.broker.unbound(queues.iter());
    if queues.is_empty() {
        return Ok(());
    }
    let keys = &inner.broker.keys;
    let mut pipe = redis::pipe();
    for queue in &queues {
        let (name, binding) = (queue.as_str(), keys.own_binding(queue));
        pipe.cmd("SADD").arg(keys.bindings(name)).arg(&binding);
        pipe.cmd("SADD").arg(keys.permanent_bindings(name)).arg(&binding);
    }
    inner.commands.pipeline("declare queues", &pipe).await?;
    inner.broker.bind(queues);
    Ok(())
}

/// kombu drops such a message without a word.
#[derive(Debug, thiserror::Error)]
#[error("no queue is bound to it; bind one, or set the transport option `deadletter_queue`")]
struct Unroutable;
