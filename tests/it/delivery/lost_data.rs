//! A server that loses everything while a task runs.

use redis::cmd;
use rwork_tests::redis::{Options, RedisServer};

use super::{each_started_once, send_chain, stage};

/// Fault 4: what runs is killed, never runs again, and leaves no record. It must end as if nothing had happened: nobody
/// else has its message. The gate is opened before or after the worker has noticed.
async fn a_running_task_ends(
    notices_first: bool,
    lose: impl AsyncFnOnce(&RedisServer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let _worker = stage.worker("holder@test", &[]).await?;
            let client = stage.client().await?;
            let ids = send_chain(&client, 1, "go").await?;
            stage.started(&ids[0]).await;
            let mut log = stage.journal.reader_from_now();
            lose(&server).await?;
            if notices_first {
                let words = "the broker has lost its data: what was taken is run to its end; consuming anew";
                log.find(|entry| entry.says(words)).await;
            }
            stage.open("go")?;
            let client = stage.client().await?;
            client.get(&ids[0]).await?;
            client.get(&ids[1]).await?;
            each_started_once(&stage, [1, 2]).await
        })
        .await
}

async fn flush(server: &RedisServer) -> anyhow::Result<()> {
    Ok(cmd("FLUSHALL").query_async(&mut server.connect(0).await?).await?)
}

async fn restart(server: &RedisServer) -> anyhow::Result<()> {
    server.kill_9()?;
    server.start_again()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_flushed() -> anyhow::Result<()> {
    a_running_task_ends(true, flush).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_flushed_just_before_the_end() -> anyhow::Result<()> {
    a_running_task_ends(false, flush).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_persistence_is_restarted() -> anyhow::Result<()> {
    a_running_task_ends(true, restart).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_persistence_is_restarted_just_before_the_end() -> anyhow::Result<()> {
    a_running_task_ends(false, restart).await
}
