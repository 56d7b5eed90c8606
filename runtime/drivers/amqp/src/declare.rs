//! Queues and what belongs to them, made as a Celery worker makes them and never fought over.
//!
//! A queue that is there already with other arguments is used as it is. The server names one difference at a time and
//! closes the channel, which is why every attempt has a channel of its own; each difference is taken over and the
//! declaration made again, until it is the queue's own. So its kind is known, which decides how deliveries are counted.

mod conflict;

use std::collections::BTreeMap;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ErrorKind, ExchangeKind};
use rwork_protocol::QueueName;
use rwork_protocol::service::Error;

use crate::error::explain;
use crate::link::Link;
use crate::marks::text;
use crate::options::{Options, QueueType};
pub(crate) use conflict::{Conflict, Current};

/// A queue has about twenty arguments; more differences than that are none that we could take over.
const CONFLICTS_MAX: usize = 24;
pub(crate) const QUEUE_TYPE: &str = "x-queue-type";
const QUORUM: &str = "quorum";
const STREAM: &str = "stream";

/// What kind of queue it is: they differ in what they tell of earlier deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Says that there was one.
    Classic,
    /// Counts them.
    Quorum,
}

/// A declaration on its way to be what the server has.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    name: ShortString,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: BTreeMap<ShortString, AMQPValue>,
}

impl Wanted {
    /// A durable queue.
    pub(crate) fn durable(name: ShortString, arguments: BTreeMap<ShortString, AMQPValue>) -> Self {
        Self { name, durable: true, exclusive: false, auto_delete: false, arguments }
    }

    /// A task queue as it is when nobody has made it before.
    pub(crate) fn task_queue(options: &Options, name: ShortString) -> Self {
        let kind = options.queue_type(name.as_str());
        let mut arguments = queue_type(kind);
        if let (QueueType::Classic, Some(max)) = (kind, options.max_priority) {
            arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(max));
        }
        Self::durable(name, arguments)
    }

    /// Declares it, or finds out how it is.
    ///
    /// # Errors
    /// When it is neither there nor can be made.
    pub(crate) async fn declare(mut self, link: &Link) -> Result<Kind, Error> {
        self.settle(link).await
    }

    /// The same; afterwards the arguments are the queue's own.
    pub(crate) async fn settle(&mut self, link: &Link) -> Result<Kind, Error> {
        for _ in 0..CONFLICTS_MAX {
            let channel = link.channel().await?;
            let Err(error) = self.declare_on(&channel).await else { return self.kind(link) };
            let known = refusal(&error, AMQPSoftError::PRECONDITIONFAILED).and_then(Conflict::parse);
            let is_refused = refusal(&error, AMQPSoftError::ACCESSREFUSED).is_some();
            match known {
                Some(conflict) if self.take_over(&conflict) => {}
                // Who may use a queue need not be allowed to make one.
                _ if known_to_be_there(&error) || is_refused => return self.look(link, error).await,
                _ => return Err(explain(link.url(), &self.act(), error)),
            }
        }
        Ok(Kind::Classic)
    }

    async fn declare_on(&self, channel: &Channel) -> lapin::Result<()> {
        let options = QueueDeclareOptions {
            passive: false,
            durable: self.durable,
            exclusive: self.exclusive,
            auto_delete: self.auto_delete,
            nowait: false,
        };
        let arguments = FieldTable::from(self.arguments.clone());
        channel.queue_declare(self.name.clone(), options, arguments).await.map(drop)
    }

    /// Whether there was something to take over.
    fn take_over(&mut self, conflict: &Conflict) -> bool {
        let flag = match conflict.name.as_str() {
            "durable" => Some(&mut self.durable),
            "exclusive" => Some(&mut self.exclusive),
            "auto_delete" => Some(&mut self.auto_delete),
            _ => None,
        };
        match (flag, &conflict.current) {
            (Some(flag), Current::Word(word)) => {
                *flag = word == "true";
                true
            }
            (None, Current::Argument(value)) => match ShortString::try_new(conflict.name.as_str()) {
                Ok(name) => self.arguments.insert(name, value.clone()).as_ref() != Some(value),
                Err(_) => false,
            },
            (None, Current::Absent) => self.arguments.remove(conflict.name.as_str()).is_some(),
            _ => false,
        }
    }

    /// Only whether it is there. Its kind is not known then: a classic queue's ways do for any.
    async fn look(&self, link: &Link, refused: lapin::Error) -> Result<Kind, Error> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = link.channel().await?;
        match channel.queue_declare(self.name.clone(), passive, FieldTable::default()).await {
            Ok(_) => self.kind(link),
            Err(error) if refusal(&error, AMQPSoftError::NOTFOUND).is_some() => {
                Err(explain(link.url(), &self.act(), refused))
            }
            Err(error) => Err(explain(link.url(), &self.act(), error)),
        }
    }

    fn kind(&self, link: &Link) -> Result<Kind, Error> {
        match self.arguments.get(QUEUE_TYPE) {
            Some(AMQPValue::LongString(kind)) if kind.as_bytes() == QUORUM.as_bytes() => Ok(Kind::Quorum),
            Some(AMQPValue::LongString(kind)) if kind.as_bytes() == STREAM.as_bytes() => {
                Err(Error::Refused {
                    url: link.url().clone(),
                    why: format!("queue `{}` is a stream, from which nothing can be taken away", self.name),
                    hint: "use another name in `queues`, or delete the stream".to_owned(),
                })
            }
            _ => Ok(Kind::Classic),
        }
    }

    pub(crate) fn arguments(&self) -> &BTreeMap<ShortString, AMQPValue> {
        &self.arguments
    }

    fn act(&self) -> String {
        format!("declare queue `{}`", self.name)
    }
}

/// The argument of a kind that is not the server's own default.
pub(crate) fn queue_type(kind: QueueType) -> BTreeMap<ShortString, AMQPValue> {
    match kind {
        QueueType::Classic => BTreeMap::new(),
        QueueType::Quorum => [(QUEUE_TYPE.into(), AMQPValue::LongString(QUORUM.into()))].into(),
    }
}

/// A task queue with the direct exchange of its name, bound by its name.
///
/// # Errors
/// When the queue is neither there nor can be made, or is a stream.
pub(crate) async fn task_queue(
    link: &Link,
    options: &Options,
    queue: &QueueName,
) -> Result<(Kind, Option<DeadLetterRoute>), Error> {
    let name = short(queue.as_str())?;
    let mut wanted = Wanted::task_queue(options, name.clone());
    let kind = wanted.settle(link).await?;
    bind(link, name.clone()).await?;
    Ok((kind, DeadLetterRoute::of(&name, wanted.arguments())))
}

/// Where a queue's own arguments send what is rejected. What a policy says of it no client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetterRoute {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
}

impl DeadLetterRoute {
    /// `None`: nowhere. Without a key of its own the server takes the message's: tasks come by their queue's name.
    fn of(queue: &ShortString, arguments: &BTreeMap<ShortString, AMQPValue>) -> Option<Self> {
        let word =
            |name: &str| arguments.get(name).and_then(text).and_then(|word| ShortString::try_new(word).ok());
        let routing_key = word("x-dead-letter-routing-key").unwrap_or_else(|| queue.clone());
        Some(Self { exchange: word("x-dead-letter-exchange")?, routing_key })
    }
}

/// The queue can be used without its exchange: that somebody else's is of another type, or that we may not make one, is
/// no failure.
async fn bind(link: &Link, name: ShortString) -> Result<(), Error> {
    let channel = link.channel().await?;
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let bound = async {
        let none = FieldTable::default;
        channel.exchange_declare(name.clone(), ExchangeKind::Direct, exchange, none()).await?;
        channel
            .queue_bind(name.clone(), name.clone(), name.clone(), QueueBindOptions::default(), none())
            .await
    };
    match bound.await {
        Ok(()) => Ok(()),
        Err(error) if soft(&error).is_some() => {
            tracing::debug!(queue = %name, %error, "the queue has no direct exchange of its name");
            Ok(())
        }
        Err(error) => Err(explain(link.url(), &format!("bind queue `{name}`"), error)),
    }
}

/// A name as it goes over the wire.
///
/// # Errors
/// When it is longer than 255 bytes.
pub(crate) fn short(name: &str) -> Result<ShortString, Error> {
    ShortString::try_new(name).map_err(|error| Error::Act {
        act: format!("use the name `{}…`", name.chars().take(NAME_SHOWN).collect::<String>()),
        retryable: false,
        source: Box::new(error),
    })
}

/// Of a name that is too long anyway.
const NAME_SHOWN: usize = 40;

/// The text of this refusal.
pub(crate) fn refusal(error: &lapin::Error, wanted: AMQPSoftError) -> Option<&str> {
    let (kind, text) = soft(error)?;
    (*kind == wanted).then_some(text)
}

/// An error that cost the channel and no more.
fn soft(error: &lapin::Error) -> Option<(&AMQPSoftError, &str)> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    match error.kind() {
        AMQPErrorKind::Soft(kind) => Some((kind, error.get_message().as_str())),
        AMQPErrorKind::Hard(_) => None,
    }
}

/// Whoever is told of a difference or a lock knows that there is something.
fn known_to_be_there(error: &lapin::Error) -> bool {
    [AMQPSoftError::PRECONDITIONFAILED, AMQPSoftError::RESOURCELOCKED]
        .into_iter()
        .any(|kind| refusal(error, kind).is_some())
}
