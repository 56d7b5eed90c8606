//! A Celery worker in Python and an rwork worker on one queue: both work, each gives back what the other one lost, and
//! neither takes from the other what it still holds.

use std::time::Duration;

use rwork_tests::celery::{Client, Pool};
use rwork_tests::process::is_full_run;
use rwork_tests::stage::{Kind, Stage};
use serde_json::{Value, json};

use super::on_both;

/// kombu's `visibility_timeout` in seconds: its default is an hour, the full run's is the promise's.
fn visibility_timeout() -> u32 {
    if is_full_run() { 5 } else { 2 }
}

/// One message at a time for each worker, so that the other side gets some. On Redis both sides look for lost messages
/// several times a second (kombu's own pace is 100 s); RabbitMQ knows at once.
async fn impatient(kind: Kind) -> anyhow::Result<Stage> {
    let timeout = visibility_timeout();
    let stage = Stage::of(kind).await?;
    if kind != Kind::Redis {
        stage.configure("worker_prefetch_multiplier = 1", "")?;
        return Ok(stage.with_settings(json!({"worker_prefetch_multiplier": 1})));
    }
    let stage = stage.with_settings(json!({"broker_transport_options": {
        "visibility_timeout": timeout, "unacked_restore_interval": 0.2, "unacked_restore_throttle": 1,
    }, "worker_prefetch_multiplier": 1}));
    stage.configure(
        "worker_prefetch_multiplier = 1",
        &format!(
            "[broker_transport_options]\nvisibility_timeout = {timeout}\n\
             unacked_restore_interval = 0.2\nunacked_restore_throttle = 1\n\n[redis]\nlease = {timeout}\n"
        ),
    )?;
    Ok(stage)
}

/// One task at a time, so that the other side gets some.
const ONE_AT_A_TIME: [&str; 4] = ["-c", "1", "--max-in-flight", "1"];

/// Sends so many `wire.hold`, numbered from 1.
async fn send_held(client: &Client, count: u64, gate: &str) -> anyhow::Result<Vec<String>> {
    let code = "return [hold.delay(number + 1, gate).id for number in range(count)]";
    let ids = client.run(code, json!({"count": count, "gate": gate})).await?;
    Ok(ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect())
}

async fn both_work_on_one_queue_and_nothing_is_lost_or_doubled(kind: Kind) -> anyhow::Result<()> {
    const TASKS: u64 = 60;
    let stage = impatient(kind).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let ids = send_held(&client, TASKS, "go").await?;
            let rwork = stage.worker("rwork@shared", &ONE_AT_A_TIME).await?;
            let celery = stage.python_worker("celery@shared", Pool::Threads(2), &[]).await?;
            // Neither gets on before the gate is open: so each has taken some.
            stage.journal.reader().find(|entry| entry.says("task started")).await;
            celery.log().find(0, |line| line.contains("holding ")).await?;
            stage.open("go")?;
            let mut nodes = Vec::new();
            for id in &ids {
                let result = client.get(id).await?;
                assert_eq!(result["redelivered"], json!(false), "{result}");
                nodes.push(result["node"].clone());
            }
            assert!(
                nodes.contains(&json!("rwork@shared")) && nodes.contains(&json!("celery@shared")),
                "{nodes:?}"
            );
            stage.settled().await?;
            for number in 1..=TASKS {
                assert_eq!(stage.starts(number)?, 1, "{number} was started more than once");
            }
            assert!(celery.terminate().await?.success());
            assert_eq!(rwork.terminate().await?.code(), Some(0));
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_25_each_side_runs_again_what_the_other_one_lost() -> anyhow::Result<()> {
    tokio::try_join!(
        celery_runs_again_what_a_killed_rwork_worker_held(Kind::Redis),
        rwork_runs_again_what_a_killed_celery_worker_held(Kind::Redis),
    )?;
    Ok(())
}

/// Items 25 and 35, one way.
pub(super) async fn celery_runs_again_what_a_killed_rwork_worker_held(kind: Kind) -> anyhow::Result<()> {
    let stage = impatient(kind).await?;
    let client = stage.client().await?;
    let rwork = stage.worker("rwork@killed", &ONE_AT_A_TIME).await?;
    stage
        .test(async {
            let id = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            stage.started(&id).await;
            rwork.kill_9().await?;
            let celery = stage.python_worker("celery@heir", Pool::Solo, &[]).await?;
            celery.holds(1).await?;
            stage.open("go")?;
            let result = client.get(&id).await?;
            assert_eq!(result, json!({"number": 1, "redelivered": true, "node": "celery@heir"}));
            Ok(())
        })
        .await
}

/// And the other.
pub(super) async fn rwork_runs_again_what_a_killed_celery_worker_held(kind: Kind) -> anyhow::Result<()> {
    let stage = impatient(kind).await?;
    let client = stage.client().await?;
    let celery = stage.python_worker("celery@killed", Pool::Solo, &[]).await?;
    stage
        .test(async {
            let id = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            celery.holds(1).await?;
            celery.kill_9()?;
            let _rwork = stage.worker("rwork@heir", &[]).await?;
            stage.started(&id).await;
            stage.open("go")?;
            let result = client.get(&id).await?;
            assert_eq!(result, json!({"number": 1, "redelivered": true, "node": "rwork@heir"}));
            assert_eq!(stage.starts(1)?, 2);
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_long_or_delayed_beyond_the_visibility_timeout_runs_once() -> anyhow::Result<()> {
    let stage = impatient(Kind::Redis).await?;
    let client = stage.client().await?;
    let rwork = stage.worker("rwork@long", &[]).await?;
    let timeout = f64::from(visibility_timeout());
    stage
        .test(async {
            // Both are rwork's: the Celery worker comes when one runs and the other is parked.
            let long = client.send("wire.last", json!([1, 2.0 * timeout]), json!({})).await?;
            let delayed = client.send("wire.note", json!([2]), json!({"countdown": 4.0 * timeout})).await?;
            stage.started(&long).await;
            stage
                .until(async |redis| {
                    Ok(redis::cmd("EXISTS").arg("rwork.delayed.celery").query_async(redis).await?)
                })
                .await?;
            let celery = stage.python_worker("celery@long", Pool::Solo, &[]).await?;
            assert_eq!(client.get(&long).await?, json!(1));
            client.get(&delayed).await?;
            stage.settled().await?;
            assert_eq!((stage.starts(1)?, stage.starts(2)?), (1, 1), "{:?}", stage.log()?);
            assert!(!celery.log().text().contains(&long), "Celery was handed what rwork held");
            assert!(celery.terminate().await?.success());
            assert_eq!(rwork.terminate().await?.code(), Some(0));
            Ok(())
        })
        .await
}

async fn a_killed_rwork_worker_is_inherited_within_its_lease(kind: Kind) -> anyhow::Result<()> {
    // By another one, long before kombu's hour, and never by name: the heir has the same. RabbitMQ needs no lease for it.
    let stage = Stage::of(kind).await?;
    let client = stage.client().await?;
    let killed = stage.worker("rwork@same", &ONE_AT_A_TIME).await?;
    stage
        .test(async {
            let id = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            stage.started(&id).await;
            let heir = stage.worker("rwork@same", &[]).await?;
            let mut log = stage.journal.reader_from_now();
            killed.kill_9().await?;
            let again = |entry: &rwork_tests::journal::Entry| {
                entry.says("task started") && entry.field("task_id") == Some(&id)
            };
            // The promise; it is the lease and two thirds, 8.3 s with the default.
            tokio::time::timeout(Duration::from_secs(10), log.find(again)).await?;
            stage.open("go")?;
            let result: Value = client.get(&id).await?;
            assert_eq!(result["redelivered"], json!(true));
            assert_eq!(heir.terminate().await?.code(), Some(0));
            Ok(())
        })
        .await
}

on_both![
    both_work_on_one_queue_and_nothing_is_lost_or_doubled,
    a_killed_rwork_worker_is_inherited_within_its_lease,
];
