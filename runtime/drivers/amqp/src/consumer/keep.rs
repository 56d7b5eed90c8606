//! What is released into a quorum queue. The server would count it and put it at the queue's end (RabbitMQ 3.10 to 3.13
//! where the queue has no delivery limit): whoever receives next gets it as if it had never been handed out. When nobody
//! does so at once, as when a worker shuts down, others must have it, and the server gets it back.

use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Delivery, Receipt};
use rwork_protocol::Message;
use tokio::time::sleep;

use super::table::{Held, Place, Stage};
use super::{Ends, Shared};
use crate::broker::locked;
use crate::content;

/// Longer than a worker that receives takes to come back, short enough for others not to wait.
const PATIENCE: Duration = Duration::from_millis(200);

impl Shared {
    /// Keeps what was released, under receipts of its own.
    pub(crate) fn keep(&self, mut released: Vec<(u64, Held)>) -> Vec<u64> {
        released.sort_unstable_by_key(|(receipt, _)| *receipt);
        let mut table = locked(&self.table);
        let mut deliveries = Vec::with_capacity(released.len());
        let mut receipts = Vec::with_capacity(released.len());
        for (_, held) in released {
            let Some(lane) = self.lane(held.lane) else { continue };
            let receipt = table.next_receipt();
            receipts.push(receipt);
            deliveries.push(Delivery {
                message: Message { body: held.body.clone(), ..content::read(&held.properties, Vec::new()) },
                queue: lane.queue.clone(),
                redelivered: true,
                delivery_count: held.delivery_count,
                receipt: Receipt(receipt),
            });
            table.insert(receipt, Held { stage: Stage::Ready, ..held });
        }
        table.keep_ready(deliveries);
        receipts
    }

    /// Gives them back unless somebody gets them before.
    pub(crate) fn let_go_soon(self: &Arc<Self>, receipts: Vec<u64>) {
        let shared = Arc::clone(self);
        self.errands.spawn(async move {
            tokio::select! {
                () = sleep(PATIENCE) => {}
                // What is left goes with its channel.
                () = shared.closing.cancelled() => return,
            }
            let unwanted = locked(&shared.table).take_unwanted(&receipts);
            for held in unwanted {
                if let (Some(lane), Place::Lane(tag)) = (shared.lane(held.lane), held.place) {
                    lane.locked().end(&Ends { requeues: vec![tag], ..Ends::default() });
                }
            }
        });
    }
}
