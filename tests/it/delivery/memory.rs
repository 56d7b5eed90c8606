//! Large results while the backend does not answer.

use std::time::Duration;

use rwork_tests::process::{WorkerProcess, is_full_run, say};
use rwork_tests::redis::{Options, RedisServer};
use rwork_tests::stage::Stage;
use serde_json::json;

use super::configure;

/// Size of a run.
struct Scale {
    in_flight: usize,
    result: usize,
    outage: Duration,
    /// `worker_bytes_max`.
    budget: usize,
}

const SHORT: Scale =
    Scale { in_flight: 64, result: 1 << 20, outage: Duration::from_secs(3), budget: 16 << 20 };
const FULL: Scale =
    Scale { in_flight: 256, result: 4 << 20, outage: Duration::from_secs(60), budget: 256 << 20 };

/// A worker's own memory, its plugins, and the guests in its slots: each holds the result that it waits with.
const OWN: usize = 192 << 20;

/// Fault 10: results of 2 MB while the backend was slow: 2.3 GB resident and rising, bounded by number only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_memory_large_results_wait_within_the_budget() -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    let (broker, backend) =
        (RedisServer::start(Options::default())?, RedisServer::start(Options::default())?);
    let backend = std::sync::Arc::new(backend);
    let stage = Stage::at(std::sync::Arc::clone(&backend), broker.url(0), backend.url(0))?;
    configure(&stage, &format!("worker_bytes_max = {}", scale.budget))?;
    stage
        .test(async {
            let in_flight = scale.in_flight.to_string();
            let worker = stage.worker("large@test", &["--max-in-flight", &in_flight]).await?;
            let client = stage.client().await?;
            let first = client.send("wire.big", json!([scale.result]), json!({})).await?;
            client.get(&first).await?;
            backend.pause()?;
            // More than may be in flight, so that nothing is missing that could be.
            let code = "return [app.send_task('wire.big', (size,)).id for _ in range(count)]";
            let count = scale.in_flight * 2;
            let ids = client.run(code, json!({"size": scale.result, "count": count})).await?;
            // How long it lasts is what matters: the memory must not rise meanwhile.
            tokio::time::sleep(scale.outage).await;
            let peak = peak(&worker)?;
            backend.resume()?;
            say(format_args!(
                "{count} results of {} MiB, {} MiB of budget: {} MiB resident at most",
                scale.result >> 20,
                scale.budget >> 20,
                peak >> 20
            ));
            assert!(peak < scale.budget + OWN, "{peak} bytes resident");
            let client = stage.client().await?;
            for id in ids.as_array().into_iter().flatten() {
                let id = id.as_str().unwrap_or_default();
                let code = "return len(result(app, id).get(timeout=T))";
                assert_eq!(client.run(code, json!({"id": id})).await?, json!(scale.result));
            }
            Ok(())
        })
        .await
}

/// The most memory that the worker has had resident so far, in bytes.
fn peak(worker: &WorkerProcess) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid()?.as_raw_nonzero()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: usize = line.unwrap_or_default().trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes << 10)
}
