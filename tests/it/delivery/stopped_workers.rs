//! A worker that is stopped for longer than a lease, while another one looks, and goes on.

use rustix::process::{Signal, kill_process};
use rwork_tests::proxy::{Cut, Fault, Proxy};
use rwork_tests::redis::Options;
use serde_json::json;
use tokio::time::sleep;

use super::{LEASE, OUTAGE, each_started_once, send_chain, stage};

/// Fault 2: SIGSTOP while what a task caused is on its way, SIGCONT when another worker has run the task: the stopped one
/// still published what follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_known_as_dead_publishes_nothing() -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    let proxy = Proxy::before(server.port())?;
    stage
        .test(async {
            let stopped = stage.worker_through(&proxy, "stopped@test", &[]).await?;
            let client = stage.client().await?;
            let ids = send_chain(&client, 1, "go").await?;
            stage.started(&ids[0]).await;
            let met = proxy.on(Fault::at(Cut::HoldRequest, &ids[1]));
            stage.open("go")?;
            met.happened().await;
            kill_process(stopped.pid()?, Signal::STOP)?;
            let other = stage.worker("other@test", &[]).await?;
            let node = client.get(&ids[1]).await?;
            assert_eq!(node, json!("other@test"), "nobody else could have run it");
            kill_process(stopped.pid()?, Signal::CONT)?;
            met.release();
            // It begins anew, and what it had asked for is refused.
            assert_eq!(other.terminate().await?.code(), Some(0));
            assert_eq!(client.call("wire.note", json!([9])).await?, json!("stopped@test"));
            stage.settled().await?;
            assert_eq!(stage.starts(1)?, 2, "once by each: the first was stopped for a lease");
            assert_eq!(stage.starts(2)?, 1, "what follows ran once");
            Ok(())
        })
        .await
}

/// A worker that looks at others is stopped for longer than a lease, and goes on: what it had seen before says nothing, and
/// it calls nobody dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_observer_calls_nobody_dead() -> anyhow::Result<()> {
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let holder = stage.worker("holder@test", &[]).await?;
            let client = stage.client().await?;
            let ids = send_chain(&client, 1, "go").await?;
            stage.started(&ids[0]).await;
            let observer = stage.worker("observer@test", &[]).await?;
            for _ in 0..3 {
                kill_process(observer.pid()?, Signal::STOP)?;
                sleep(OUTAGE).await;
                kill_process(observer.pid()?, Signal::CONT)?;
                // Long enough to count a death, were there one.
                sleep(LEASE * 2).await;
            }
            stage.open("go")?;
            assert_eq!(client.get(&ids[0]).await?["node"], json!(holder.node()));
            client.get(&ids[1]).await?;
            each_started_once(&stage, [1, 2]).await
        })
        .await
}
