//! What happens to the server while a worker has work: consumption resumes by itself, nothing that was accepted is lost,
//! what runs is left alone, and the log says what the server refused.

use std::sync::Arc;

use redis::cmd;
use rwork_tests::journal::Entry;
use rwork_tests::redis::{MASTER_NAME, Options, RedisServer, Sentinel};
use rwork_tests::stage::Stage;
use serde_json::json;

use super::busy::Busy;

/// The task that runs, and as many others as a worker of one slot prefetches.
const HELD: u32 = 5;

/// Starts it, with one task that runs.
async fn start(stage: Stage) -> anyhow::Result<Busy> {
    // It is full: what it asks of the server during the outage are renewals, and nothing else.
    let held = async |redis: &mut _| Ok(cmd("HLEN").arg("unacked").query_async::<u32>(redis).await? == HELD);
    Busy::start(stage, async |stage| stage.until(held).await).await
}

/// Waits until the worker has warned of whatever it met first since the outage began.
async fn warned(busy: &Busy) {
    busy.log.clone().find(Entry::is_alarming).await;
}

/// Waits until the worker has warned of this cause since the outage began.
async fn told(busy: &Busy, cause: &str) {
    let causes = |error: &str| error.contains(cause);
    let mut log = busy.log.clone();
    log.find(|entry| entry.is_alarming() && entry.field("error").is_some_and(causes)).await;
}

/// A stage on a server of its own, with short leases and little patience.
fn stage(options: Options) -> anyhow::Result<(Arc<RedisServer>, Stage)> {
    let server = Arc::new(RedisServer::start(options)?);
    let stage = Stage::on(Arc::clone(&server))?;
    configure(&stage, "")?;
    Ok((server, stage))
}

fn configure(stage: &Stage, more: &str) -> anyhow::Result<()> {
    let patience = "socket_timeout = 1\nsocket_connect_timeout = 1\n";
    stage.configure(
        "",
        &format!(
            "[broker_transport_options]\n{patience}{more}\n\
             [result_backend_transport_options]\n{patience}{more}\n[redis]\nlease = 2\n"
        ),
    )
}

/// Awaits a test of one outage, with the workers' log if it fails.
macro_rules! busy {
    ($stage:expr, |$busy:ident| $test:expr) => {{
        let $busy = start($stage).await?;
        let journal = $busy.stage.journal.clone();
        rwork_tests::stage::unless_it_hangs(&journal, async move {
            $test;
            $busy.all_come().await?;
            $busy.began_once()?;
            assert_eq!($busy.stage.starts(0)?, 1, "what was running at the outage was left alone");
            Ok(())
        })
        .await
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back() -> anyhow::Result<()> {
    let (server, stage) = stage(Options { append_only: true, ..Options::default() })?;
    busy!(stage, |busy| {
        server.kill_9()?;
        warned(&busy).await;
        server.start_again()?
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_is_killed() -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    busy!(stage, |busy| {
        let mut redis = server.connect(0).await?;
        let kill = async |kind: &str, redis: &mut _| -> anyhow::Result<u32> {
            Ok(cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).query_async(redis).await?)
        };
        let killed = kill("normal", &mut redis).await? + kill("pubsub", &mut redis).await?;
        // Whether the worker had just something to say to the server or not: nobody is told of it, since nothing ends.
        assert!(killed >= 2, "the worker has more than one connection");
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_goes_on() -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    busy!(stage, |busy| {
        server.pause()?;
        warned(&busy).await;
        server.resume()?
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_answers_late() -> anyhow::Result<()> {
    let (server, stage) = stage(Options::default())?;
    busy!(stage, |busy| {
        let mut redis = server.connect(0).await?;
        let asleep =
            tokio::spawn(async move { cmd("DEBUG").arg("SLEEP").arg(5).query_async::<()>(&mut redis).await });
        warned(&busy).await;
        asleep.await??
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_another_one_for_a_while() -> anyhow::Result<()> {
    let (server, stage) = stage(Options { password: Some("first".to_owned()), ..Options::default() })?;
    busy!(stage, |busy| {
        let mut redis = server.connect(0).await?;
        let mut password = cmd("CONFIG");
        let () = password.arg("SET").arg("requirepass").arg("second").query_async(&mut redis).await?;
        let () = cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").query_async(&mut redis).await?;
        told(&busy, "WRONGPASS").await;
        for entry in busy.stage.journal.so_far() {
            assert!(!entry.to_string().contains("first"), "the log tells a password: {entry}");
        }
        let () = cmd("CONFIG").arg("SET").arg("requirepass").arg("first").query_async(&mut redis).await?;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_is_full_for_a_while() -> anyhow::Result<()> {
    let (server, stage) = stage(Options { memory_max: Some("64mb".to_owned()), ..Options::default() })?;
    busy!(stage, |busy| {
        let mut redis = server.connect(0).await?;
        let () = cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).query_async(&mut redis).await?;
        // Each message that is acked makes the room that its result needs.
        busy.stage.open("go")?;
        busy.stage.settled().await?;
        let () = cmd("CONFIG").arg("SET").arg("maxmemory").arg("64mb").query_async(&mut redis).await?;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_becomes_the_master() -> anyhow::Result<()> {
    let master = RedisServer::start(Options::default())?;
    let replica =
        Arc::new(RedisServer::start(Options { replica_of: Some(master.port()), ..Options::default() })?);
    replica.log().find(0, |line| line.contains("Finished with success")).await?;
    let sentinel = Sentinel::start(&master)?;
    sentinel.knows_a_replica().await?;
    let options = json!({"master_name": MASTER_NAME});
    let stage = Stage::at(Arc::clone(&replica), sentinel.url(0), sentinel.url(0))?.with_settings(json!({
        "broker_transport_options": options, "result_backend_transport_options": options,
    }));
    configure(&stage, &format!("master_name = \"{MASTER_NAME}\"\n"))?;
    busy!(stage, |busy| {
        // What is looked into is the replica: all that was accepted is there already.
        master.kill_9()?;
        warned(&busy).await;
        sentinel.has_switched().await?
    })
}
