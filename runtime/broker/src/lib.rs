//! What a message broker must be able to do, without naming one.
//!
//! The contract has five rules. A consumer is an identity that outlives its connections ([`Consumer::resume`]). Only the
//! store's word ends it: no timeout of ours does. What an outcome causes is one [`Commit`], fenced by its receipt, and a
//! [`Batch`] of them can be repeated by its number. Starts are counted, not deliveries. Each commit answers for itself.
//!
//! Batches go in and out: a driver pays for its round trip, transaction or write once per batch. Nothing here mentions a
//! client library, a table or a key; what brokers do differently is declared in [`Capabilities`].

mod commit;
mod dead_letter;
mod delivery;

use std::time::Duration;

use async_trait::async_trait;
use rwork_protocol::{Message, QueueName, Timestamp};

pub use commit::{BATCH_BYTES_MAX, Batch, Commit, Committed, Ending, Part, Refusal};
pub use dead_letter::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
pub use delivery::{Delivery, Disposition, Receipt, Settlement};
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
    /// Ground on which a delivery is ours.
    pub ownership: Ownership,
    /// Commits carry records: results are kept where messages are, and both are written in one step.
    pub commits_records: bool,
    /// `Delivery::delivery_count` is exact over crashes.
    pub counts_deliveries: bool,
    /// A batch is published whole or not at all.
    pub atomic_publish: bool,
    /// Exchanges and bindings exist (otherwise only the default exchange).
    pub exchanges: bool,
    /// Largest message it takes, in bytes.
    pub message_bytes_max: usize,
}

/// Ground on which a delivery is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Renewals that other workers see. Who is not seen to renew for so long, by workers that are well, is dead.
    Lease(Duration),
    /// The life of this process, which the kernel knows.
    Process,
    /// The connection: a server takes back what a lost one held.
    Connection,
}

impl Ownership {
    /// The length of a lease, where there is one.
    pub fn lease(self) -> Option<Duration> {
        match self {
            Self::Lease(lease) => Some(lease),
            Self::Process | Self::Connection => None,
        }
    }
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
    /// Node name, for logs and dead letters; two consumers of one name are two consumers.
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

    /// Publishes a batch and returns when the broker has it durably (confirmed): one outcome for each message, in order. A
    /// message that is refused stops no other.
    ///
    /// # Errors
    /// When nothing is known of the batch: the broker is full or was not reached, or its answer was lost. Any part of it may
    /// have been accepted then, or none if [`Capabilities::atomic_publish`] and the error is [`Error::Full`].
    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<Result<(), Error>>, Error>;

    /// Publishes a batch of which every message must be accepted.
    ///
    /// # Errors
    /// As [`Broker::publish`], and the first refusal.
    async fn publish_all(&self, batch: Vec<Publish>) -> Result<(), Error> {
        self.publish(batch).await?.into_iter().collect()
    }

    /// Starts to consume, as a new consumer.
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

/// Messages and bytes to take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Messages at most, at least 1.
    pub messages: usize,
    /// Bytes after which no more is taken. The last message may go beyond it.
    pub bytes: usize,
}

/// Answer of a store to a consumer whose connection was made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The consumer stands. Its deliveries stay held, but for `gone`.
    Stands {
        /// Deliveries that are ours and were never handed to the caller (the answer of their taking was lost), or that the
        /// caller had committed and the store has forgotten to be committed (it lost data).
        fresh: Vec<Delivery>,
        /// Deliveries that were handed to the caller and are not ours any more. A delivery in a batch whose answer was lost
        /// may be among them: the batch's answer decides then.
        gone: Vec<Receipt>,
    },
    /// Others know it as dead, or another copy of this process took its place. Nothing is ours any more; consume anew.
    ///
    /// The store keeps its numbers and answers for a day: a batch that was not answered may be committed once more by the
    /// dead consumer. What it holds no receipt for is done then, once; the rest is [`Committed::Lost`]. `LeaseLost` is the
    /// word for a copy of this process, which sends that batch itself.
    Dead,
    /// The store lost everything. Nobody else has what was held; consume anew, and end what runs with [`Ending::Unfenced`].
    Forgotten,
}

/// One consumer: holds deliveries until they are settled. An identity, not a connection.
///
/// Any call may fail with [`Error::Unreachable`] (its connection was lost, and its answer with it) or
/// [`Error::LeaseLost`] (the store refuses this consumer, or this connection of it). Then the consumer takes no more calls
/// but [`Consumer::renew`] and [`Consumer::close`] until [`Consumer::resume`] has said what stands; what is held stays held
/// meanwhile.
#[async_trait]
pub trait Consumer: Send + Sync + std::fmt::Debug + 'static {
    /// Makes the connection again, under the same identity, and asks what stands. Shows others that it lives, as a renewal
    /// does.
    ///
    /// # Errors
    /// When the store can't be reached, or can't answer now: try again after a pause.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call goes on.
    async fn resume(&self) -> Result<Resumed, Error>;

    /// Waits until something can be delivered and returns it, in order. One caller at a time.
    ///
    /// # Errors
    /// As for each call of a consumer. [`Error::Act`] and [`Error::Full`]: nothing could be taken now; try again after a
    /// pause.
    ///
    /// # Cancel safety
    /// Cancel safe: what was taken for a cancelled call is returned by the next one.
    async fn receive(&self, room: Room) -> Result<Vec<Delivery>, Error>;

    /// Commits a batch in one round trip; answers in the order of the batch. One caller at a time.
    ///
    /// # Errors
    /// As for each call of a consumer: the same batch is to be sent again after [`Consumer::resume`].
    /// [`Error::Full`] and a retryable [`Error::Act`]: nothing was changed; send the same batch again after a pause.
    /// Any other: nothing was changed and never will be by this batch; its number may be used again.
    async fn commit(&self, batch: &Batch) -> Result<Vec<Committed>, Error>;

    /// Shows others that this consumer lives, on a connection of its own. Called every fifth of a lease, or every second
    /// where there is none; from a thread that does nothing else. False: [`Consumer::resume`] has something to say.
    ///
    /// # Errors
    /// When the store can't be reached: nothing is lost by that. [`Error::LeaseLost`] as false.
    async fn renew(&self) -> Result<bool, Error>;

    /// Ends the consumer. What it still holds goes back to the head of its queues, unmarked and uncounted, save for
    /// `started`, which may have begun: those are marked redelivered. Closing twice is harmless.
    ///
    /// # Errors
    /// When the store can't be reached: others find it dead by themselves.
    async fn close(&self, started: &[Receipt]) -> Result<(), Error>;
}
