//! A Celery app as its users have it (`tests/python/sample`), unchanged but for where its tasks run.

use std::process::Output;

use rwork_tests::python::{Version, sources};
use rwork_tests::stage::{Kind, Stage};
use serde_json::json;

use super::on_both;

/// Runs `python use.py` of the sample, with the broker that a deployment would set.
async fn use_it(stage: &Stage, version: Version) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(version.interpreter());
    command.arg(sources().join("sample/use.py")).env("SHOP_BROKER", stage.broker());
    command.env("SHOP_RESULTS", stage.backend());
    command.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
    Ok(command.output().await?)
}

async fn the_sample_runs_with_every_client(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("sample@test", &["-Q", "default"]).await?;
    stage
        .test(async {
            for version in Version::ALL {
                let output = use_it(&stage, version).await?;
                let (shown, errors) =
                    (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "Celery {}: {errors}", version.number());
                let words: Vec<&str> = shown.split_whitespace().collect();
                // The id; whether it was ready at once, which may be either; the sum; and that it is ready then.
                let [id, early, sum, late] = words.as_slice() else { panic!("{shown}") };
                assert_eq!(id.len(), 36, "{shown}");
                assert!(["True", "False"].contains(early), "{shown}");
                assert_eq!((*sum, *late), ("5", "True"), "{shown}");
            }
            Ok(())
        })
        .await
}

async fn autoretry_backs_off_and_gets_there(kind: Kind) -> anyhow::Result<()> {
    // `retry_backoff=2` with jitter: up to 2 s before the second attempt.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("sample@test", &["-Q", "default"]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let queue = json!({"queue": "default"});
            let id = client.send("shop.flaky", json!([1]), queue.clone()).await?;
            assert_eq!(client.get(&id).await?, json!(1), "the number of retries");
            let id = client.send("shop.broken", json!([]), queue).await?;
            let raised = client.get(&id).await.unwrap_err();
            assert_eq!(
                (raised.class().as_str(), &raised.args),
                ("builtins.ValueError", &json!(["never mended"]))
            );
            Ok(())
        })
        .await
}

on_both![the_sample_runs_with_every_client, autoretry_backs_off_and_gets_there,];
