//! The exchanges and queues of native delayed delivery, with Celery's names and arguments.

use std::collections::BTreeMap;

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use rwork_protocol::service::Error;

use super::EXIT;
use crate::declare::{Wanted, queue_type};
use crate::error::explain;
use crate::link::Link;
use crate::options::QueueType;

/// `celery_delayed_0` to `celery_delayed_27`
pub(crate) const LEVELS: u32 = 28;
const MILLIS: i64 = 1000;

pub(crate) fn level_name(level: u32) -> String {
    format!("celery_delayed_{level}")
}

/// Makes what is missing, the last level first, so that none leads nowhere.
pub(super) async fn declare(link: &Link, kind: QueueType) -> Result<(), Error> {
    let channel = link.channel().await?;
    let explain = |error| explain(link.url(), "declare delayed delivery", error);
    declare_exchange(&channel, EXIT.into()).await.map_err(explain)?;
    for level in 0..LEVELS {
        let name: ShortString = level_name(level).into();
        declare_exchange(&channel, name.clone()).await.map_err(explain)?;
        // One that is there already in another shape is used as it is.
        Wanted::durable(name.clone(), arguments(level, kind)).declare(link).await?;
        bind(&channel, level, name).await.map_err(explain)?;
    }
    Ok(())
}

async fn declare_exchange(channel: &Channel, name: ShortString) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default()).await
}

/// A one at this level's place leads into its queue, a zero past it.
async fn bind(channel: &Channel, level: u32, name: ShortString) -> lapin::Result<()> {
    let before = "*.".repeat((LEVELS - 1 - level) as usize);
    let (wait, pass) = (format!("{before}1.#").into(), format!("{before}0.#").into());
    let none = FieldTable::default;
    channel.queue_bind(name.clone(), name.clone(), wait, QueueBindOptions::default(), none()).await?;
    channel.exchange_bind(next(level), name, pass, ExchangeBindOptions::default(), none()).await
}

fn next(level: u32) -> ShortString {
    level.checked_sub(1).map_or(EXIT.into(), |level| level_name(level).into())
}

fn arguments(level: u32, kind: QueueType) -> BTreeMap<ShortString, AMQPValue> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = queue_type(kind);
    // Celery names the kind even where it is the server's own default.
    arguments.insert("x-queue-type".into(), text(kind.as_str()));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(MILLIS << level));
    arguments.insert("x-dead-letter-exchange".into(), text(next(level).as_str()));
    if kind == QueueType::Quorum {
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    arguments
}
