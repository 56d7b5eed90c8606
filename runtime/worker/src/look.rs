//! A look into deliveries: decoding, and what has to be asked of the backend before intake can decide.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;

use rwork_broker::{Delivery, Error};
use rwork_protocol::{Record, State, TaskId, decode, may_be_compressed};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::intake::{Arrived, Source};
use crate::outage::{Outage, chain};
use crate::shared::Shared;

/// Decodes deliveries.
pub(crate) async fn into(shared: &Arc<Shared>, deliveries: Vec<Delivery>) -> Vec<Arrived> {
    let mut arrived = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        arrived.push(look(shared, delivery).await);
    }
    arrived
}

/// Decodes a message. What is compressed may take seconds, which nothing else has to wait for.
async fn look(shared: &Arc<Shared>, delivery: Delivery) -> Arrived {
    let message = if may_be_compressed(&delivery.message) {
        let (shared, message) = (Arc::clone(shared), delivery.message.clone());
        match spawn_blocking(move || decode(&message, &shared.config.decode_limits)).await {
            Ok(message) => message,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime ends, and we with it.
                Err(_) => pending().await,
            },
        }
    } else {
        decode(&delivery.message, &shared.config.decode_limits)
    };
    let decoded = message.as_ref().map_or(0, |message| message.args.len() + message.kwargs.len());
    let body = shared.budget.bodies.take(decoded.max(delivery.message.size()));
    Arrived { body, message, success: None, delivery }
}

/// Asks the backend, in one round trip, whether redelivered messages have succeeded before, for as long as that takes.
///
/// # Errors
/// [`Interrupted`] when the consumer's line was lost first: the line must not wait for the backend.
pub(crate) async fn recall(
    shared: &Shared,
    source: &Source,
    arrived: &mut [Arrived],
) -> Result<(), Interrupted> {
    let mut again: Vec<_> = arrived.iter_mut().filter(|arrived| arrived.delivery.redelivered).collect();
    again.retain(|arrived| arrived.message.is_ok());
    let ids: Vec<_> = again
        .iter()
        .filter_map(|arrived| arrived.message.as_ref().ok())
        .map(|message| message.headers.id.clone())
        .collect();
    if ids.is_empty() || !shared.config.deduplicate_successful {
        return Ok(());
    }
    let records = tokio::select! {
        biased;
        () = source.session.until_troubled() => return Err(Interrupted),
        records = stored(shared, &ids) => records,
    };
    for (arrived, record) in again.iter_mut().zip(records) {
        arrived.success = record.filter(|record| record.status == State::Success);
    }
    Ok(())
}

/// The line was lost before the backend had answered.
#[derive(Debug)]
pub(crate) struct Interrupted;

/// Reads records, for as long as that takes. One that can't be read, since another worker wrote it, is no success that we know
/// of, and must not hide the others.
async fn stored(shared: &Shared, ids: &[TaskId]) -> Vec<Option<Record>> {
    let mut outage = Outage::of_backend("read results", shared.backoff());
    loop {
        match shared.backend.get(ids).await {
            Ok(records) => {
                outage.over();
                return records;
            }
            Err(error @ Error::Act { retryable: false, .. }) => {
                let [id] = ids else { break };
                tracing::warn!(task_id = %id, error = %chain(&error), "can't read the result of a redelivered task: it runs");
                return vec![None];
            }
            Err(error) => sleep(outage.failed(&error)).await,
        }
    }
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        records.append(&mut Box::pin(stored(shared, std::slice::from_ref(id))).await);
    }
    records
}
