//! `--drain`: notices when nothing is left to do.

use std::time::Duration;

use rwork_broker::Broker;
use rwork_protocol::QueueName;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often the queues are looked at: rarely enough to cost nothing beside the work, often enough for a script.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until nothing is ready and nothing is held in the queues, then asks for the end. What a task sends is published
/// before its own message is acked, so that an empty look is the truth unless somebody else sends.
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn until_empty(broker: &dyn Broker, queues: &[QueueName], intake: &CancellationToken) {
    while !intake.is_cancelled() {
        match broker.queues().await {
            Ok(infos) => {
                let mut ours = infos.iter().filter(|info| queues.contains(&info.name));
                if ours.all(|info| info.ready == 0 && info.unsettled == 0) {
                    tracing::info!("nothing is left to do");
                    intake.cancel();
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "can't look at the queues"),
        }
        sleep(LOOK_EVERY).await;
    }
}
