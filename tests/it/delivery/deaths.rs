//! Workers that die, again and again, with a message in their hands.

use redis::cmd;
use rwork_tests::redis::Options;
use rwork_tests::stage::Stage;
use serde_json::{Value, json};

use super::{each_started_once, stage, stage_with};

/// Takes one task, which runs, and holds others meanwhile.
const ONE_AT_A_TIME: [&str; 4] = ["-c", "1", "--max-in-flight", "1"];

async fn holds(stage: &Stage, count: u32) -> anyhow::Result<()> {
    stage.until(async |redis| Ok(cmd("HLEN").arg("unacked").query_async::<u32>(redis).await? >= count)).await
}

/// Fault 6: one worker runs a long task with four more prefetched; after five times SIGKILL and start the four, which were
/// never started, were dead letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_only_prefetched_is_never_counted() -> anyhow::Result<()> {
    const DEATHS: usize = 5;
    const WAITING: u64 = 4;
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let client = stage.client().await?;
            let code = r#"return [hold.delay(0, "go").id] + [note.delay(n + 1).id for n in range(waiting)]"#;
            let ids = client.run(code, json!({"waiting": WAITING})).await?;
            let ids: Vec<&str> = ids.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut log = stage.journal.reader();
            for death in 0..DEATHS {
                let worker = stage.worker(&format!("doomed-{death}@test"), &ONE_AT_A_TIME).await?;
                log.find(|entry| entry.says("task started") && entry.field("task_id") == Some(ids[0])).await;
                holds(&stage, 1 + WAITING as u32).await?;
                worker.kill_9().await?;
            }
            stage.open("go")?;
            let _last = stage.worker("last@test", &ONE_AT_A_TIME).await?;
            for id in &ids {
                client.get(id).await?;
            }
            each_started_once(&stage, 1..=WAITING).await?;
            assert_eq!(stage.begun(ids[0]), DEATHS + 1);
            assert_eq!(stage.dead().await?, Vec::<Value>::new());
            Ok(())
        })
        .await
}

/// Fault 11, and rule 4: a message that kills its worker is stopped after the cap and one more; the steps behind it get
/// records, and its errback is called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_its_worker_is_stopped_and_its_chain_told() -> anyhow::Result<()> {
    const CAP: usize = 2;
    let (_server, stage) = stage_with(Options::default(), &format!("task_deliveries_max = {CAP}"))?;
    stage
        .test(async {
            let client = stage.client().await?;
            let code = r#"
                killer = hold.si(1, "never").on_error(handled.s().set(task_id=errback))
                last = chain(killer, note.si(2), note.si(3)).delay()
                return [last.parent.parent.id, last.parent.id, last.id]
            "#;
            let errback = super::fresh_id();
            let ids = client.run(code, json!({"errback": errback})).await?;
            let ids: Vec<&str> = ids.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut log = stage.journal.reader();
            for death in 0..=CAP {
                let worker = stage.worker(&format!("doomed-{death}@test"), &[]).await?;
                log.find(|entry| entry.says("task started") && entry.field("task_id") == Some(ids[0])).await;
                worker.kill_9().await?;
            }
            let _last = stage.worker("last@test", &[]).await?;
            ends_with_its_chain(&stage, &ids, &errback).await?;
            assert_eq!(stage.begun(ids[0]), CAP + 1, "the cap and one more");
            assert_eq!(stage.dead().await?.len(), 1);
            Ok(())
        })
        .await
}

/// Fault 11: the same of a task that no plugin provides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_task_tells_its_chain() -> anyhow::Result<()> {
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let client = stage.client().await?;
            let code = r#"
                stranger = signature("no.such_task", app=app, immutable=True)
                stranger = stranger.on_error(handled.s().set(task_id=errback))
                last = chain(stranger, note.si(2), note.si(3)).delay()
                return [last.parent.parent.id, last.parent.id, last.id]
            "#;
            let errback = super::fresh_id();
            let ids = client.run(code, json!({"errback": errback})).await?;
            let ids: Vec<&str> = ids.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let _worker = stage.worker("worker@test", &[]).await?;
            ends_with_its_chain(&stage, &ids, &errback).await
        })
        .await
}

/// Each step has a record of its failure, none but the first has run, and the errback was called with the first one's id.
async fn ends_with_its_chain(stage: &Stage, ids: &[&str], errback: &str) -> anyhow::Result<()> {
    let client = stage.client().await?;
    for id in ids {
        let raised = client.get(id).await.expect_err("a step of a chain that failed");
        assert_ne!(raised.name, "TimeoutError", "no record of {id}");
        assert_eq!(client.state(id).await?, "FAILURE");
    }
    assert_eq!(client.get(errback).await?, json!(ids[0]), "the errback");
    stage.settled().await?;
    assert_eq!((stage.starts(2)?, stage.starts(3)?), (0, 0), "a step ran behind one that failed");
    Ok(())
}
