//! One handing-over of a message, and how it ends.

use rwork_protocol::{Message, QueueName, Timestamp};

use crate::dead_letter::Reason;

/// The driver's number of a delivery. Unique for the life of its consumer, and never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt(pub u64);

/// A message handed over to this consumer, which must settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message, byte for byte.
    pub message: Message,
    /// The queue it came from.
    pub queue: QueueName,
    /// May have begun before: its worker died while it held the message, or an outcome sent it back. Such a message
    /// needs [`crate::Ending::Starting`] before it may start.
    pub redelivered: bool,
    /// Starts that were written down, plus this one; 1 at first. The first start of a message is not written down
    /// (`delivery.md` §1.4).
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
    /// Back to the end of its queue, marked redelivered; this start counts, once, whether it was written down or not.
    Requeue,
    /// Never started: back to the head of its queue, as it was before it was taken. Nothing is marked or counted.
    Release,
    /// Begun, and cut short through no fault of its own (a shutdown): back to the head of its queue, marked redelivered. The
    /// start does not count.
    Interrupt,
    /// Not due yet: the broker holds it back until then, as if it had not been delivered; a time that has passed:
    /// deliverable at once. One step, so that no crash doubles it. Needs [`crate::Capabilities::delayed`].
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
