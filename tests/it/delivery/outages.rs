//! A server that does not serve for longer than a lease, while workers run a task and look at each other.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use rwork_tests::child::free_port;
use rwork_tests::proxy::{Cut, Fault, Met, Proxy};
use rwork_tests::redis::{Options, RedisServer};
use rwork_tests::stage::Stage;
use serde_json::json;
use tokio::time::sleep;

use super::{LEASE, OUTAGE, each_started_once, send_chain, stage};

/// Fault 3: a task that runs while this happens runs once, in the worker that had it, and so does what follows it.
async fn a_running_task_is_left_alone(
    options: Options,
    outage: impl AsyncFnOnce(&RedisServer, &mut MultiplexedConnection) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (server, stage) = stage(options)?;
    stage
        .test(async {
            let client = stage.client().await?;
            let holder = stage.worker("holder@test", &[]).await?;
            let ids = send_chain(&client, 1, "go").await?;
            stage.started(&ids[0]).await;
            let _other = stage.worker("other@test", &[]).await?;
            outage(&server, &mut server.connect(0).await?).await?;
            stage.open("go")?;
            // A client of its own: what an outage does to Celery's clients is not the matter here.
            let client = stage.client().await?;
            assert_eq!(client.get(&ids[0]).await?["node"], json!(holder.node()));
            client.get(&ids[1]).await?;
            each_started_once(&stage, [1, 2]).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_killed_one_after_the_other() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |_, redis| {
        let list: String = cmd("CLIENT").arg("LIST").query_async(redis).await?;
        let own: u64 = cmd("CLIENT").arg("ID").query_async(redis).await?;
        let ids = list.lines().filter_map(|line| line.split(' ').next()?.strip_prefix("id=")?.parse().ok());
        for id in ids.filter(|id: &u64| *id != own) {
            // One that has gone by itself is none.
            let _: u32 = cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(redis).await?;
            sleep(OUTAGE / 20).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_paused() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |_, redis| {
        let () = cmd("CLIENT").arg("PAUSE").arg(OUTAGE.as_millis() as u64).query_async(redis).await?;
        sleep(OUTAGE).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_sleeps() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |_, redis| {
        Ok(cmd("DEBUG").arg("SLEEP").arg(OUTAGE.as_secs()).query_async(redis).await?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_stopped() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |server, _| {
        server.pause()?;
        sleep(OUTAGE).await;
        server.resume()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_down() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options { append_only: true, ..Options::default() }, async |server, _| {
        server.kill_9()?;
        sleep(OUTAGE).await;
        server.start_again()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_takes_no_writes_as_a_replica() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |_, redis| {
        // A master that is not there: the data stays, and every write is refused with READONLY.
        let () = cmd("REPLICAOF").arg("127.0.0.1").arg(free_port()?).query_async(redis).await?;
        sleep(OUTAGE).await;
        Ok(cmd("REPLICAOF").arg("NO").arg("ONE").query_async(redis).await?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_busy_with_a_script() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |server, redis| {
        let () = cmd("CONFIG").arg("SET").arg("busy-reply-threshold").arg(50).query_async(redis).await?;
        let mut looping = server.connect(0).await?;
        let looped = tokio::spawn(async move {
            cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut looping).await
        });
        sleep(OUTAGE).await;
        let () = cmd("SCRIPT").arg("KILL").query_async(redis).await?;
        assert!(looped.await?.is_err(), "the script was killed");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_cannot_save() -> anyhow::Result<()> {
    a_running_task_is_left_alone(Options::default(), async |server, redis| {
        // A directory in the file's place: no snapshot can be written, and every write is refused with MISCONF.
        std::fs::create_dir(server.directory().join("dump.rdb"))?;
        let () = cmd("CONFIG").arg("SET").arg("save").arg("3600 100000").query_async(redis).await?;
        let () = cmd("BGSAVE").query_async(redis).await?;
        let failed = |info: &String| info.contains("rdb_last_bgsave_status:err");
        while !failed(&cmd("INFO").arg("persistence").query_async(redis).await?) {
            sleep(OUTAGE / 100).await;
        }
        sleep(OUTAGE).await;
        Ok(cmd("CONFIG").arg("SET").arg("stop-writes-on-bgsave-error").arg("no").query_async(redis).await?)
    })
    .await
}

/// The first new connections after a cut are taken, and never answered: who waits for one of them as long as people do
/// misses a lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_are_silent() -> anyhow::Result<()> {
    const SILENT: usize = 4;
    let server = Arc::new(RedisServer::start(Options::default())?);
    let (stage, proxy) = (Stage::on(Arc::clone(&server))?, Proxy::before(server.port())?);
    stage.configure("", &format!("[redis]\nlease = {}\n", LEASE.as_secs()))?;
    stage
        .test(async {
            let client = stage.client().await?;
            let holder = stage.worker_through(&proxy, "holder@test", &[]).await?;
            let ids = send_chain(&client, 1, "go").await?;
            stage.started(&ids[0]).await;
            let _other = stage.worker("other@test", &[]).await?;
            let silent: Vec<Met> =
                (0..SILENT).map(|_| proxy.on(Fault::at(Cut::HoldAnswer, "HELLO"))).collect();
            proxy.cut_all();
            silent[0].happened().await;
            sleep(OUTAGE).await;
            stage.open("go")?;
            assert_eq!(client.get(&ids[0]).await?["node"], json!(holder.node()));
            client.get(&ids[1]).await?;
            each_started_once(&stage, [1, 2]).await
        })
        .await
}
