//! Tasks that are longer than the time between two cuts of the server.

use std::time::Duration;

use rwork_tests::process::{is_full_run, say};
use rwork_tests::proxy::Proxy;
use rwork_tests::redis::Options;
use serde_json::{Value, json};

use super::{each_started_once, stage};

/// Length of a run.
struct Scale {
    rounds: u64,
    /// Of one task.
    task: Duration,
    cut_every: Duration,
}

const SHORT: Scale = Scale { rounds: 1, task: Duration::from_secs(6), cut_every: Duration::from_secs(2) };
/// Half an hour.
const FULL: Scale = Scale { rounds: 30, task: Duration::from_secs(60), cut_every: Duration::from_secs(20) };
/// Tasks of one round, of two workers.
const TASKS: u64 = 8;

/// Long tasks run once while every connection is cut again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_long_tasks_outlive_many_connections() -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    let (server, stage) = stage(Options::default())?;
    let proxy = Proxy::before(server.port())?;
    stage
        .test(async {
            let _workers = (
                stage.worker_through(&proxy, "one@test", &[]).await?,
                stage.worker_through(&proxy, "other@test", &[]).await?,
            );
            let client = stage.client().await?;
            let mut cuts = 0;
            for round in 0..scale.rounds {
                let numbers = round * TASKS..(round + 1) * TASKS;
                let code = "return [last.delay(number, seconds).id for number in numbers]";
                let numbers = numbers.collect::<Vec<u64>>();
                let ids =
                    client.run(code, json!({"numbers": numbers, "seconds": scale.task.as_secs()})).await?;
                let code = "return [result(app, id).get(timeout=10 * T) for id in ids]";
                let all = client.run(code, json!({"ids": ids}));
                tokio::pin!(all);
                let mut pace = tokio::time::interval(scale.cut_every);
                pace.tick().await;
                let results = loop {
                    tokio::select! {
                        results = &mut all => break results?,
                        _ = pace.tick() => cuts += usize::from(proxy.cut_all() > 0),
                    }
                };
                assert_eq!(results, json!(numbers));
            }
            assert!(cuts > 1, "nothing was cut");
            each_started_once(&stage, 0..scale.rounds * TASKS).await?;
            assert_eq!(stage.dead().await?, Vec::<Value>::new());
            say(format_args!("{} long tasks ran once through {cuts} cuts", scale.rounds * TASKS));
            Ok(())
        })
        .await
}
