//! A queue as it is.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use rwork_protocol::QueueName;
use rwork_protocol::service::Error;

use crate::declare::{QUEUE_TYPE, Wanted, short};
use crate::error::{explain, reply, reply_code};
use crate::handle::Inner;

/// A configured queue as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInUse {
    /// Its name.
    pub name: String,
    /// `classic`, `quorum` or `stream`; `None`: there is none, a worker would make it.
    pub kind: Option<String>,
    /// Messages that could be delivered now.
    pub ready: u32,
    /// Consumers it has.
    pub consumers: u32,
    /// Its arguments, in words: `x-max-priority` and `10`. Policies are not among them.
    pub arguments: Vec<(String, String)>,
}

/// Looks at one queue. It is made only if it goes in this very moment, as a worker would make it.
pub(super) async fn look(inner: &Inner, name: &QueueName) -> Result<QueueInUse, Error> {
    let (link, short) = (&inner.consuming, short(name.as_str())?);
    let mut found =
        QueueInUse { name: name.to_string(), kind: None, ready: 0, consumers: 0, arguments: Vec::new() };
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let channel = link.channel().await?;
    match channel.queue_declare(short.clone(), passive, FieldTable::default()).await {
        Ok(queue) => (found.ready, found.consumers) = (queue.message_count(), queue.consumer_count()),
        Err(error) if reply_code(&error).is_some_and(|(code, _)| code == reply::NOT_FOUND) => {
            return Ok(found);
        }
        Err(error) => return Err(explain(link.url(), &format!("look at queue `{name}`"), error)),
    }
    let mut wanted = Wanted::task_queue(&inner.options, short);
    match wanted.settle(link).await {
        // A stream is refused, and known all the same.
        Ok(_) | Err(Error::Refused { .. }) => {}
        Err(error) => return Err(error),
    }
    found.arguments =
        wanted.arguments().iter().map(|(name, value)| (name.to_string(), words(value))).collect();
    let kind = found.arguments.iter().find(|(name, _)| name == QUEUE_TYPE).map(|(_, kind)| kind.clone());
    found.kind = Some(kind.unwrap_or_else(|| "classic".to_owned()));
    Ok(found)
}

fn words(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::Boolean(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
