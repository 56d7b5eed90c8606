//! Words of a store about each change, for whoever keeps account.

use rwork_broker::{Reason, Receipt};
use rwork_protocol::{State, TaskId};

use crate::member::ConsumerId;
use crate::messages::Serial;

/// One change of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message was accepted.
    Accepted {
        /// The message.
        serial: Serial,
        /// The consumer whose commit published it, and the delivery that the commit was fenced by; `None`: a plain publish.
        by: Option<(ConsumerId, Option<Receipt>)>,
    },
    /// A message was taken by a consumer.
    Taken {
        /// The message.
        serial: Serial,
        /// The consumer.
        consumer: ConsumerId,
        /// The number of the delivery.
        receipt: Receipt,
        /// It may have begun before.
        redelivered: bool,
    },
    /// A delivery has another number since its consumer was resumed.
    Renumbered {
        /// The consumer.
        consumer: ConsumerId,
        /// The number before.
        from: Receipt,
        /// The number since.
        to: Receipt,
    },
    /// A start was written down.
    StartWritten {
        /// The consumer.
        consumer: ConsumerId,
        /// The delivery.
        receipt: Receipt,
    },
    /// A delivery ended.
    Ended {
        /// The message.
        serial: Serial,
        /// The consumer.
        consumer: ConsumerId,
        /// The delivery.
        receipt: Receipt,
        /// The way in which it ended.
        how: How,
    },
    /// A record was written.
    Recorded {
        /// The task.
        id: TaskId,
        /// Its state.
        state: State,
        /// The delivery that it came from, as the message's correlation id says.
        from: Option<String>,
    },
    /// A caller broke the contract.
    Broken(String),
}

/// The way in which a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Acked.
    Acked,
    /// Back to the end of its queue, counted.
    Requeued,
    /// Back to the head of its queue, unmarked.
    Released,
    /// Begun, and given back by a shutdown.
    Interrupted,
    /// Held back until it is due.
    Delayed,
    /// Kept as a dead letter.
    Dead(Reason),
    /// Its consumer was found dead.
    Reaped,
    /// Its consumer was closed; true: the delivery may have begun.
    Closed(bool),
    /// Its connection was lost, where that is what keeps a delivery.
    Cut,
}
