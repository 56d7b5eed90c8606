//! Reads our queue of results for as long as the process lives, over as many connections as it takes.
//!
//! The queue is declared as Celery's clients do theirs: it goes with its consumer, or a day after. What is sent to it while
//! there is no connection is lost, as it is with Celery.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use rwork_backend::Error;
use rwork_net::Backoff;
use rwork_protocol::Record;
use tokio_util::task::AbortOnDropHandle;

use super::replies::Table;
use crate::error::explain;
use crate::handle::Inner;
use crate::link::Link;

const ACT: &str = "consume results";
/// A record that needs more room than this was not written by a result of any use; it could take all our memory.
const PLAIN_BYTES_MAX: usize = 256 << 20;

/// Where results come from.
struct Keeper {
    link: Link,
    queue: ShortString,
    expires: Duration,
    table: Arc<Table>,
}

/// Consumes from the queue of this name, which is declared when this returns.
pub(super) async fn start(
    inner: &Inner,
    queue: &str,
    table: Arc<Table>,
) -> Result<AbortOnDropHandle<()>, Error> {
    let keeper = Keeper {
        link: inner.consuming.clone(),
        queue: queue.into(),
        expires: inner.options.reply_expires,
        table,
    };
    let consumer = keeper.consume().await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(keeper.run(consumer))))
}

impl Keeper {
    async fn run(self, mut consumer: lapin::Consumer) {
        loop {
            while let Some(Ok(delivery)) = consumer.next().await {
                self.hear(delivery.data);
            }
            consumer = self.again().await;
        }
    }

    fn hear(&self, body: Vec<u8>) {
        match Record::decode_stored(&Bytes::from(body), PLAIN_BYTES_MAX) {
            Ok(record) => self.table.hear(record),
            Err(error) => tracing::warn!(url = %self.link.url(), %error, "a result that came can't be read"),
        }
    }

    async fn again(&self) -> lapin::Consumer {
        let began = tokio::time::Instant::now();
        tracing::warn!(url = %self.link.url(), "results no longer come: the connection was lost");
        let mut attempts = 0;
        loop {
            match self.consume().await {
                Ok(consumer) => {
                    let seconds = began.elapsed().as_secs_f64();
                    tracing::info!(url = %self.link.url(), seconds, "results come again");
                    return consumer;
                }
                Err(error) => tracing::debug!(url = %self.link.url(), %error, "results do not come yet"),
            }
            tokio::time::sleep(Backoff::default().pause(attempts)).await;
            attempts += 1;
        }
    }

    async fn consume(&self) -> Result<lapin::Consumer, Error> {
        let channel = self.link.channel().await?;
        let explain = |error| explain(self.link.url(), ACT, error);
        let options =
            QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        let expires = u32::try_from(self.expires.as_millis()).unwrap_or(u32::MAX);
        arguments.insert("x-expires".into(), AMQPValue::LongUInt(expires));
        channel.queue_declare(self.queue.clone(), options, arguments).await.map_err(explain)?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer =
            channel.basic_consume(self.queue.clone(), ShortString::default(), options, FieldTable::default());
        consumer.await.map_err(explain)
    }
}
