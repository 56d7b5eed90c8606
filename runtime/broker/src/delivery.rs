//! One handing-over of a message, and how it ends.

use rwork_protocol::{Message, QueueName, Timestamp};

use crate::dead_letter::Reason;

/// A driver's own mark of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receipt {
    /// A sequence number or delivery tag.
    Number(u64),
    /// A textual tag.
    Tag(Box<str>),
}

/// A message handed over to this consumer, which must settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message, byte for byte.
    pub message: Message,
    /// The queue it came from.
    pub queue: QueueName,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Deliveries that ended without an outcome, plus this one; 1 at first.
    pub delivery_count: u32,
    /// The driver's mark.
    pub receipt: Receipt,
}

impl Delivery {
    /// Ends the delivery. Consumes it, so that settling twice does not compile.
    pub fn settle(self, disposition: Disposition) -> Settlement {
        let kept = matches!(disposition, Disposition::DeadLetter(_) | Disposition::Delay(_));
        let message = kept.then_some(self.message);
        Settlement { receipt: self.receipt, queue: self.queue, disposition, message }
    }
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Done: the broker forgets it.
    Ack,
    /// Back to its queue, counted as a delivery without an outcome.
    Requeue,
    /// Never started: back to the head of its queue, as if it had not been delivered.
    Release,
    /// Not due yet: the broker holds it back until then, as if it had not been delivered, uncounted; a time that has
    /// passed: deliverable at once. One step, so that no crash doubles it. Needs [`crate::Capabilities::delayed`].
    Delay(Timestamp),
    /// Kept aside, byte-identical, with the reason.
    DeadLetter(Reason),
}

/// A delivery's end on its way to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The driver's mark.
    pub receipt: Receipt,
    /// The queue it came from.
    pub queue: QueueName,
    /// How it ends.
    pub disposition: Disposition,
    /// The message, for brokers that must publish it to keep it as a dead letter or delayed; only there.
    pub message: Option<Message>,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// As asked.
    Done,
    /// It was not ours any more (lease lost, or settled before): nothing was changed.
    Lost,
}
