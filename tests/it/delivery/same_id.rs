//! An id that is sent again on purpose.

use redis::cmd;
use rwork_tests::redis::Options;
use serde_json::json;

use super::stage;

/// Fault 7: an id that is sent again each day, and meets a shutdown while prefetched, was called redelivered, found to have
/// succeeded before, not run, and the old result was passed to its chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_sent_again_runs_after_a_shutdown() -> anyhow::Result<()> {
    const ID: &str = "daily-report";
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let worker = stage.worker("yesterday@test", &["-c", "1", "--max-in-flight", "1"]).await?;
            let client = stage.client().await?;
            client.send("wire.echo", json!(["yesterday's"]), json!({"task_id": ID})).await?;
            assert_eq!(client.get(ID).await?, json!("yesterday's"));
            let busy = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            stage.started(&busy).await;
            let code = r#"return chain(echo.s("today's").set(task_id=id), echo.s()).delay().id"#;
            let last = client.run(code, json!({"id": ID})).await?;
            let both =
                async |redis: &mut _| Ok(cmd("HLEN").arg("unacked").query_async::<u32>(redis).await? == 2);
            stage.until(both).await?;
            let leaving = tokio::spawn(worker.terminate());
            // It gives back what has not begun, and waits for what has.
            let back =
                async |redis: &mut _| Ok(cmd("LLEN").arg("celery").query_async::<u32>(redis).await? == 1);
            stage.until(back).await?;
            stage.open("go")?;
            assert_eq!(leaving.await??.code(), Some(0));
            let _next = stage.worker("today@test", &[]).await?;
            assert_eq!(client.get(last.as_str().unwrap()).await?, json!("today's"));
            assert_eq!(stage.begun(ID), 2);
            Ok(())
        })
        .await
}
