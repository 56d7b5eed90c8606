//! Waiting for a task's end, showing on a terminal what it says meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rwork_backend::ResultBackend;
use rwork_protocol::{Record, TaskId};
use tokio::time::timeout;

use crate::context::Context;
use crate::failure::Failure;
use crate::report;

/// Waits for the final record. `None`: interrupted.
///
/// # Errors
/// When the backend fails, or the time is up.
pub(crate) async fn wait(
    context: &Context,
    backend: &Arc<dyn ResultBackend>,
    id: &TaskId,
    limit: Option<Duration>,
) -> anyhow::Result<Option<Record>> {
    let spinner = context.printer.spinner();
    let follow = async {
        let mut records = backend.watch(id).await?;
        while let Some(record) = records.next().await {
            let record = record?;
            if record.status.is_ready() {
                return Ok(record);
            }
            spinner.say(&report::progress(&record));
        }
        Err(anyhow::Error::from(Failure::failed(format!("the result backend stopped telling about `{id}`"))))
    };
    let limited = async {
        match limit {
            Some(limit) => timeout(limit, follow).await.unwrap_or_else(|_| Err(late(id, limit).into())),
            None => follow.await,
        }
    };
    tokio::select! {
        record = limited => record.map(Some),
        _ = tokio::signal::ctrl_c() => {
            context.printer.note(format!("not waiting any more; `rwork result {id} --wait` waits again"));
            Ok(None)
        }
    }
}

fn late(id: &TaskId, limit: Duration) -> Failure {
    Failure::failed(format!("no result of `{id}` within {} s", limit.as_secs_f64()))
        .hint(format!("is a worker running on its queue? `rwork queues` shows what waits; `rwork result {id} --wait` waits again"))
}
