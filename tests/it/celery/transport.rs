//! Checklist B: kombu's keys on Redis, byte for byte, and who may hold what.

mod keys;
mod order;
mod urls;

use redis::aio::MultiplexedConnection;
use serde_json::Value;

/// Between the parts of a binding, and before a priority step.
const SEP: &str = "\u{6}\u{16}";

/// What is registered as held: tag, and `[envelope, exchange, routing_key]`.
async fn held(redis: &mut MultiplexedConnection) -> anyhow::Result<Vec<(String, Value)>> {
    let pairs: Vec<(String, String)> = redis::cmd("HGETALL").arg("unacked").query_async(redis).await?;
    pairs.into_iter().map(|(tag, text)| Ok((tag, serde_json::from_str(&text)?))).collect()
}

/// Waits in `until` for so many held messages.
async fn holds(redis: &mut MultiplexedConnection, count: usize) -> anyhow::Result<bool> {
    Ok(redis::cmd("HLEN").arg("unacked").query_async::<usize>(redis).await? == count)
}

/// Waits in `until` for so many queued messages.
async fn queues(redis: &mut MultiplexedConnection, count: usize) -> anyhow::Result<bool> {
    Ok(redis::cmd("LLEN").arg("celery").query_async::<usize>(redis).await? == count)
}
