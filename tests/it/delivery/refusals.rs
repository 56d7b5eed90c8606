//! Something that can never be stored or published: it fails alone.

use redis::cmd;
use rwork_tests::celery::Client;
use rwork_tests::redis::Options;
use rwork_tests::stage::Stage;
use serde_json::json;

use super::{configure, each_started_once, stage};

/// Fault 8: a settlement that can never succeed lost the whole session: 8 starts of an innocent task in 12 s. One runs
/// here while others end that can't be stored or followed.
async fn an_innocent_task_runs_once(
    stage: &Stage,
    guilty: impl AsyncFnOnce(&Client) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let _worker = stage.worker("worker@test", &[]).await?;
    let client = stage.client().await?;
    let innocent = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
    stage.started(&innocent).await;
    let mut log = stage.journal.reader_from_now();
    for id in guilty(&client).await? {
        // Each is heard of: by what became of it.
        log.clone().find(|entry| entry.is_alarming() && entry.field("task_id") == Some(&*id)).await;
    }
    let others = client.call("wire.add", json!([2, 3])).await?;
    assert_eq!(others, json!(5), "others come and go meanwhile");
    stage.open("go")?;
    client.get(&innocent).await?;
    each_started_once(stage, [1]).await?;
    while let Some(entry) = log.try_next() {
        assert!(!entry.says("ready"), "the session was begun anew");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_another_type_concern_their_tasks_alone() -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    stage
        .test(an_innocent_task_runs_once(&stage, async |client| {
            let mut redis = server.connect(0).await?;
            let overwritten = super::fresh_id();
            let key = format!("celery-task-meta-{overwritten}");
            let () = cmd("LPUSH").arg(key).arg("a list").query_async(&mut redis).await?;
            let () = cmd("SET").arg("elsewhere").arg("no list").query_async(&mut redis).await?;
            client.send("wire.echo", json!([1]), json!({"task_id": overwritten})).await?;
            stage.said("task succeeded", &overwritten).await;
            let code = r#"return echo.apply_async((1,), link=echo.s().set(queue="elsewhere")).id"#;
            let unfollowed = client.eval(code).await?;
            Ok(vec![unfollowed.as_str().unwrap().to_owned()])
        }))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_concern_their_tasks_alone() -> anyhow::Result<()> {
    const USER: &str = "--user rwork on >secret ~celery* ~_kombu* ~unacked* ~rwork* &* +@all";
    let more = USER.split(' ').map(str::to_owned).collect();
    let server =
        std::sync::Arc::new(rwork_tests::redis::RedisServer::start(Options { more, ..Options::default() })?);
    let url = format!("redis://rwork:secret@127.0.0.1:{}/0", server.port());
    let stage = Stage::at(std::sync::Arc::clone(&server), url.clone(), url)?;
    configure(&stage, "")?;
    stage
        .test(an_innocent_task_runs_once(&stage, async |client| {
            let code = r#"return echo.apply_async((1,), link=echo.s().set(queue="elsewhere")).id"#;
            let unfollowed = client.eval(code).await?;
            Ok(vec![unfollowed.as_str().unwrap().to_owned()])
        }))
        .await
}

/// Fault 14: an argument with a lone surrogate, which the client also writes into `argsrepr`, made the whole message a
/// dead letter on Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_characters_are_read_as_on_rabbitmq() -> anyhow::Result<()> {
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let _worker = stage.worker("worker@test", &[]).await?;
            let client = stage.client().await?;
            let result = client.eval(r#"return echo.delay("a\ud800b").get(timeout=T)"#).await?;
            assert_eq!(result, json!("a\u{fffd}b"));
            assert_eq!(stage.dead().await?.len(), 0);
            Ok(())
        })
        .await
}
