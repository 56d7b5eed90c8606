//! The native Rust worker of the crate `celery`, or of its fork `celery-rs`: one task that does nothing, from one queue, without a sandbox and without
//! results, acknowledged when that worker does by itself. `celery-rs-peer URL QUEUE PREFETCH`: a prefetch of 0 has no limit.
//! Serves until it is killed.

#![allow(non_local_definitions, reason = "what the peer's macro expands to")]

use celery::prelude::*;

/// Nothing.
#[celery::task(name = "noop.noop")]
fn noop() -> TaskResult<()> {
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, queue, prefetch] = arguments.as_slice() else {
        return Err("expected URL QUEUE PREFETCH".into());
    };
    let (url, prefetch) = (url.clone(), prefetch.parse::<u16>()?);
    // Two types, of which each is made by a macro.
    if url.starts_with("amqp") {
        let app = celery::app!(
            broker = AMQPBroker { url },
            tasks = [noop],
            task_routes = [],
            prefetch_count = prefetch,
        );
        app.await?.consume_from(&[queue]).await?;
    } else {
        let app = celery::app!(
            broker = RedisBroker { url },
            tasks = [noop],
            task_routes = [],
            prefetch_count = prefetch,
        );
        app.await?.consume_from(&[queue]).await?;
    }
    Ok(())
}
