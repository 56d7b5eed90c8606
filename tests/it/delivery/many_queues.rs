//! Queues by the thousand, and messages that no queue shows.

use redis::cmd;
use rwork_tests::redis::Options;
use serde_json::{Value, json};

use super::stage;

/// Fault 9: with 2,000 queues a worker said that it was ready, and got "too many results to unpack" for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_queues_are_served() -> anyhow::Result<()> {
    const QUEUES: usize = 2_000;
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let queues: Vec<String> = (0..QUEUES).map(|number| format!("queue-{number}")).collect();
            let _worker = stage.worker("worker@test", &["-Q", &queues.join(",")]).await?;
            let client = stage.client().await?;
            for queue in queues.iter().step_by(QUEUES / 5).chain(queues.last()) {
                let id = client.send("wire.add", json!([2, 3]), json!({"queue": queue})).await?;
                assert_eq!(client.get(&id).await?, json!(5), "in {queue}");
            }
            Ok(())
        })
        .await
}

/// Fault 12: a message that a worker of the first edition was handed when Redis crashed waits in a list of its own, which
/// `queues` and `purge` did not see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_of_the_first_edition_are_counted_and_purged() -> anyhow::Result<()> {
    const LEFT: u64 = 3;
    let (server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let client = stage.client().await?;
            client.run("for number in range(count): note.delay(number)", json!({"count": LEFT + 1})).await?;
            let mut redis = server.connect(0).await?;
            for _ in 0..LEFT {
                let () = cmd("LMOVE")
                    .arg(&["celery", "rwork.taking.celery", "RIGHT", "LEFT"])
                    .query_async(&mut redis)
                    .await?;
            }
            let queues: Value = serde_json::from_str(&stage.rwork(&["queues", "--json"]).await?)?;
            let celery = queues.as_array().into_iter().flatten().find(|queue| queue["name"] == "celery");
            let count = |name: &str| celery.and_then(|queue| queue[name].as_u64()).unwrap_or_default();
            assert_eq!(count("ready") + count("held"), LEFT + 1, "{queues}");
            stage.rwork(&["purge", "celery", "--yes"]).await?;
            let left: u64 = cmd("EXISTS").arg("rwork.taking.celery").query_async(&mut redis).await?;
            assert_eq!(left, 0, "something was left behind");
            Ok(())
        })
        .await
}
