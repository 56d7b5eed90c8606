//! A real store, called one call at a time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rwork_backend::ResultBackend;
use rwork_broker::{Broker, Consumer, Delivery, QueueInfo, Room};
use rwork_protocol::QueueName;
use tokio::time::{sleep, timeout};

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at what somebody else has to do.
const LOOK: Duration = Duration::from_millis(20);

/// Broker and backend of one place.
pub(super) struct Real {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) backend: Arc<dyn ResultBackend>,
}

impl Real {
    /// Takes what is there; something is.
    pub(super) async fn receive(&self, consumer: &dyn Consumer, room: Room) -> anyhow::Result<Vec<Delivery>> {
        let deliveries = timeout(PATIENCE, consumer.receive(room)).await.context("nothing came")??;
        anyhow::ensure!(!deliveries.is_empty(), "an empty batch came");
        Ok(deliveries)
    }

    /// A queue as it is now.
    pub(super) async fn queue(&self, name: &QueueName) -> anyhow::Result<QueueInfo> {
        let queues = self.broker.queues().await?;
        let empty = QueueInfo { name: name.clone(), ready: 0, unsettled: 0, delayed: 0, dead: 0 };
        Ok(queues.into_iter().find(|queue| queue.name == *name).unwrap_or(empty))
    }

    /// Waits until a queue is so; `others` renew meanwhile, as they would.
    pub(super) async fn until_queue(
        &self,
        expected: &QueueInfo,
        others: &[&dyn Consumer],
        every: Duration,
    ) -> anyhow::Result<()> {
        let mut found = None;
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            for other in others {
                anyhow::ensure!(other.renew().await?, "a living consumer must be resumed");
            }
            let queue = self.queue(&expected.name).await?;
            if queue == *expected {
                return Ok(());
            }
            found = Some(queue);
            sleep(every.max(LOOK)).await;
            waited += every.max(LOOK);
        }
        bail!("expected {expected:?}, found {found:?}")
    }
}
