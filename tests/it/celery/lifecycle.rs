//! Checklist F, as far as no remote control is needed: expiry, time limits, rejections, lost instances.

use rwork_tests::python::Version::{Current, Old};
use rwork_tests::stage::{self, Kind, Stage};
use serde_json::{Value, json};

use super::{client, kinds_of_the_dead, on_both};

/// One slot: what is sent second waits.
const ONE_AT_A_TIME: [&str; 4] = ["-c", "1", "--max-in-flight", "1"];

async fn item_76_an_expired_task_is_revoked(kind: Kind) -> anyhow::Result<()> {
    // The event `task-revoked` comes with the events.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("expiring@test", &[]).await?;
    stage
        .test(async {
            for version in [Current, Old] {
                let client = stage.client_of(version).await?;
                let id = client.send("wire.note", json!([1]), json!({"expires": -1})).await?;
                let raised = client.get(&id).await.unwrap_err();
                assert_eq!(raised.class(), "celery.exceptions.TaskRevokedError", "{raised}");
                assert_eq!(raised.args, json!(["expired"]));
                assert_eq!(client.state(&id).await?, "REVOKED");
            }
            stage.settled().await?;
            assert_eq!(stage.starts(1)?, 0);
            assert_eq!(stage.dead().await?, Vec::<Value>::new());
            Ok(())
        })
        .await
}

async fn item_77_a_task_may_expire_while_it_waits_for_a_slot(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("expiring@test", &ONE_AT_A_TIME).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            // Twice as long as the other one may wait, and sent first.
            let long = client.send("wire.last", json!([1, 2.0]), json!({})).await?;
            let late = client.send("wire.note", json!([2]), json!({"expires": 1})).await?;
            let raised = client.get(&late).await.unwrap_err();
            assert_eq!((raised.name.as_str(), &raised.args), ("TaskRevokedError", &json!(["expired"])));
            assert_eq!(client.get(&long).await?, json!(1));
            assert_eq!((stage.starts(1)?, stage.starts(2)?), (1, 0));
            Ok(())
        })
        .await
}

async fn item_78_a_soft_limit_can_be_caught(kind: Kind) -> anyhow::Result<()> {
    let client = client(kind, Current).await?;
    stage::shared(kind)
        .await?
        .test(async {
            let limits = json!({"soft_time_limit": 1, "time_limit": 60});
            let caught = client.send("wire.soft", json!([true]), limits.clone()).await?;
            let thrown = client.send("wire.soft", json!([false]), limits).await?;
            assert_eq!(client.get(&caught).await?, json!("caught"));
            let raised = client.get(&thrown).await.unwrap_err();
            assert_eq!(raised.class(), "billiard.exceptions.SoftTimeLimitExceeded", "{raised}");
            assert_eq!(client.state(&thrown).await?, "FAILURE");
            Ok(())
        })
        .await
}

async fn item_79_a_hard_limit_ends_what_never_looks_up(kind: Kind) -> anyhow::Result<()> {
    // That there is one event `task-failed` comes with the events.
    let client = client(kind, Current).await?;
    stage::shared(kind)
        .await?
        .test(async {
            let id = client.send("wire.spin", json!([]), json!({"time_limit": 1})).await?;
            let raised = client.get(&id).await.unwrap_err();
            assert_eq!(raised.class(), "billiard.exceptions.TimeLimitExceeded", "{raised}");
            assert_eq!(raised.args, json!([1]));
            // Celery has none; a guest's stack can be told.
            let traceback = client.record(&id).await?["traceback"].clone();
            assert!(traceback.as_str().is_some_and(|text| text.contains("wire::")), "{traceback}");
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5), "the worker goes on");
            Ok(())
        })
        .await
}

async fn item_84_a_rejected_message_comes_again_or_is_kept_aside(kind: Kind) -> anyhow::Result<()> {
    // The event `task-rejected` comes with the events. What Celery drops is a dead letter here.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("rejecting@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            assert_eq!(client.call("wire.reject", json!([true])).await?, json!("came again"));
            let id = client.send("wire.reject", json!([false]), json!({})).await?;
            let raised = client.get(&id).await.unwrap_err();
            assert_eq!(raised.class(), "celery.exceptions.Reject", "{raised}");
            assert_eq!(raised.args, json!(["unwanted", false]));
            assert_eq!(kinds_of_the_dead(&stage).await?, ["rejected"]);
            Ok(())
        })
        .await
}

async fn item_85_a_lost_instance_hurts_nobody_else(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("trapping@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let held = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            stage.started(&held).await;
            let raised = client.call("wire.trap", json!([])).await.unwrap_err();
            assert_eq!(raised.class(), "billiard.exceptions.WorkerLostError", "{raised}");
            assert_eq!(client.call("wire.trap_again", json!([])).await?, json!("came again"));
            stage.open("go")?;
            assert_eq!(client.get(&held).await?["redelivered"], json!(false));
            assert_eq!(stage.starts(1)?, 1);
            Ok(())
        })
        .await
}

on_both![
    item_76_an_expired_task_is_revoked,
    item_77_a_task_may_expire_while_it_waits_for_a_slot,
    item_78_a_soft_limit_can_be_caught,
    item_79_a_hard_limit_ends_what_never_looks_up,
    item_84_a_rejected_message_comes_again_or_is_kept_aside,
    item_85_a_lost_instance_hurts_nobody_else,
];
