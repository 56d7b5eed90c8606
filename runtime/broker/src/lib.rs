//! What a message broker must be able to do, without naming one.
//!
//! Batches go in and batches are settled: a driver pays for its round trip, transaction or write once per batch. Nothing
//! here mentions a client library, a table or a key; what brokers do differently is declared in [`Capabilities`].

mod dead_letter;
mod delivery;

use std::time::Duration;

use async_trait::async_trait;
use rwork_protocol::{Message, QueueName, Timestamp};

pub use dead_letter::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
pub use delivery::{Delivery, Disposition, Receipt, Settled, Settlement};
pub use rwork_protocol::service::{BoxError, Error, RedactedUrl};

/// Where a message is sent, in AMQP's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Empty: the default exchange, which delivers to the queue that the routing key names.
    pub exchange: String,
    /// Routing key; the queue's name on the default exchange.
    pub routing_key: String,
}

impl Route {
    /// Straight to one queue, as Celery sends tasks.
    pub fn queue(queue: &QueueName) -> Self {
        Self { exchange: String::new(), routing_key: queue.as_str().to_owned() }
    }
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub route: Route,
    /// What.
    pub message: Message,
    /// The broker holds it back until then; `None` or the past: deliverable at once. Needs [`Capabilities::delayed`].
    pub not_before: Option<Timestamp>,
}

/// What a broker does natively. The worker asks here instead of asking which broker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It holds messages back by itself (`Publish::not_before`).
    pub delayed: bool,
    /// Which priority comes first, or none are kept.
    pub priorities: Option<PriorityOrder>,
    /// How long a delivery stays ours without [`Consumer::renew`]; `None`: as long as the connection lives.
    pub lease: Option<Duration>,
    /// `Delivery::delivery_count` is exact over crashes.
    pub counts_deliveries: bool,
    /// A batch is published whole or not at all.
    pub atomic_publish: bool,
    /// Exchanges and bindings exist (otherwise only the default exchange).
    pub exchanges: bool,
    /// Largest message it takes, in bytes.
    pub message_bytes_max: usize,
}

/// The meaning of a priority number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorityOrder {
    /// 0 is served first, 9 last (Celery on Redis; embedded).
    LowFirst,
    /// The largest number is served first (AMQP).
    HighFirst,
}

/// How to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume {
    /// Queues to take from; created when missing. At least one.
    pub queues: Vec<QueueName>,
    /// Node name, for leases, logs and dead letters; two consumers of one name never share a lease.
    pub name: String,
    /// The most that may ever be held unsettled at once, of all queues together, as the broker sees it: what was sent ahead
    /// and what is moved by the driver count as well. Not less than one of each queue.
    pub unsettled_max: usize,
}

/// How full a queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: QueueName,
    /// Messages that could be delivered now.
    pub ready: u64,
    /// Messages handed out and not settled.
    pub unsettled: u64,
    /// Messages held back until their time.
    pub delayed: u64,
    /// Dead letters that came from it.
    pub dead: u64,
}

/// A connection to a message broker. Shared by every task of a process.
#[async_trait]
pub trait Broker: Send + Sync + std::fmt::Debug + 'static {
    /// What it does natively.
    fn capabilities(&self) -> Capabilities;

    /// Publishes a batch and returns when the broker has all of it durably (confirmed).
    ///
    /// # Errors
    /// On an error nothing was accepted if [`Capabilities::atomic_publish`]; otherwise a part may have been.
    async fn publish(&self, batch: Vec<Publish>) -> Result<(), Error>;

    /// Starts to consume.
    ///
    /// # Errors
    /// When the broker can't be reached or refuses a queue.
    async fn consume(&self, options: Consume) -> Result<Box<dyn Consumer>, Error>;

    /// The queues there are.
    ///
    /// # Errors
    /// When the broker can't be reached.
    async fn queues(&self) -> Result<Vec<QueueInfo>, Error>;

    /// Deletes all messages of a queue that nobody holds, delayed ones too; returns how many.
    ///
    /// # Errors
    /// When the broker can't be reached.
    async fn purge(&self, queue: &QueueName) -> Result<u64, Error>;

    /// Dead letters, oldest first.
    ///
    /// # Errors
    /// When the broker can't be reached.
    async fn dead_letters(&self, query: DeadLetterQuery) -> Result<Vec<DeadLetter>, Error>;

    /// Puts matching dead letters back into the queues they came from, with a fresh delivery count; returns how many.
    ///
    /// # Errors
    /// When the broker can't be reached.
    async fn retry_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error>;

    /// Deletes matching dead letters; returns how many.
    ///
    /// # Errors
    /// When the broker can't be reached.
    async fn purge_dead_letters(&self, query: DeadLetterQuery) -> Result<u64, Error>;
}

/// One consumer: holds deliveries until they are settled.
#[async_trait]
pub trait Consumer: Send + Sync + std::fmt::Debug + 'static {
    /// Waits until something can be delivered and returns up to `max` deliveries, in order. One caller at a time.
    ///
    /// # Errors
    /// When the connection is lost: nothing held is ours any more, consume again.
    ///
    /// # Cancel safety
    /// Cancel safe: what was taken for a cancelled call is returned by the next one.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, Error>;

    /// Settles a batch in one round trip; answers in the order of the batch. Settling twice is harmless.
    ///
    /// # Errors
    /// When the connection is lost: each delivery may or may not be settled, and unsettled ones will be redelivered.
    async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>, Error>;

    /// Keeps everything that is held ours for another [`Capabilities::lease`]. Called every third of it.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the lease had run out: nothing held is ours any more, consume again.
    async fn renew(&self) -> Result<(), Error>;

    /// Ends the consumer; whatever it still holds goes back to the head of its queues, uncounted.
    ///
    /// # Errors
    /// When the broker can't be reached: its leases run out by themselves.
    async fn close(&self) -> Result<(), Error>;
}
