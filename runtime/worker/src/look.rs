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

/// Looks into deliveries.
pub(crate) async fn into(shared: &Arc<Shared>, source: &Source, deliveries: Vec<Delivery>) -> Vec<Arrived> {
    let mut arrived = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        arrived.push(look(shared, delivery).await);
    }
    if shared.config.deduplicate_successful {
        recall(shared, source, &mut arrived).await;
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

/// Asks the backend, in one round trip, whether redelivered messages have succeeded before.
async fn recall(shared: &Shared, source: &Source, arrived: &mut [Arrived]) {
    let mut again: Vec<_> = arrived.iter_mut().filter(|arrived| arrived.delivery.redelivered).collect();
    again.retain(|arrived| arrived.message.is_ok());
    let ids: Vec<_> = again
        .iter()
        .filter_map(|arrived| arrived.message.as_ref().ok())
        .map(|message| message.headers.id.clone())
        .collect();
    if ids.is_empty() {
        return;
    }
    for (arrived, record) in again.iter_mut().zip(stored(shared, source, &ids).await) {
        arrived.success = record.filter(|record| record.status == State::Success);
    }
}

/// Reads records, for as long as that takes or the consumer lives. One that can't be read, since another worker wrote it, is
/// no success that we know of, and must not hide the others.
async fn stored(shared: &Shared, source: &Source, ids: &[TaskId]) -> Vec<Option<Record>> {
    let mut outage = Outage::of_backend("read results", shared.backoff());
    loop {
        match shared.backend.get(ids).await {
            Ok(records) => {
                outage.over();
                return records;
            }
            Err(_) if source.session.over().is_some() => return vec![None; ids.len()],
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
        records.append(&mut Box::pin(stored(shared, source, std::slice::from_ref(id))).await);
    }
    records
}
