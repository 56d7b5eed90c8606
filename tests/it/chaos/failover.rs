//! A replica takes over from a master that dies in the middle of everything: what the replica had not got yet is lost with
//! the master, and counted apart. Nothing may be stuck afterwards.

use std::sync::Arc;
use std::time::Instant;

use ::redis::cmd;
use rwork_client::Client;
use rwork_redis::{Options, Redis, Role};
use rwork_tests::history::{History, Producer, Progress, judge};
use rwork_tests::journal::Journal;
use rwork_tests::process::{say, seed, unless_it_hangs};
use rwork_tests::proxy::Proxy;
use rwork_tests::redis::{self, RedisServer};
use serde_json::json;
use tokio::sync::watch;

use super::crew::{Crew, Ground, Kind};
use super::faults::{Counts, Scale, produce_mix};
use super::redis::is_empty;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_a_fail_over_leaves_nothing_stuck() -> anyhow::Result<()> {
    let journal = Journal::default();
    let scale = Scale::wanted();
    say(format_args!("chaos of a fail-over: {} tasks, RWORK_SEED={}", scale.tasks, seed()?));
    unless_it_hangs(&journal, run(scale, &journal)).await
}

async fn run(scale: Scale, journal: &Journal) -> anyhow::Result<()> {
    let began = Instant::now();
    let master = RedisServer::start(redis::Options::default())?;
    let replica_of = Some(master.port());
    let replica = RedisServer::start(redis::Options { replica_of, ..redis::Options::default() })?;
    replica.log().find(0, |line| line.contains("Finished with success")).await?;
    let proxy = Proxy::before(master.port())?;
    let url = format!("redis://127.0.0.1:{}/0", proxy.port());
    let ours = format!("[broker_transport_options]\nsocket_timeout = 2\n[redis]\nlease = {}", scale.lease);
    let ground = Arc::new(Ground::new(journal, url.clone(), url.clone(), &ours, json!({}))?);
    let broker = Redis::connect(Options::parse(&url, Role::Broker)?).await?;
    let backend = Redis::connect(Options::parse(&url, Role::Backend)?).await?;
    let mut crew = Crew::of(&[Kind::Rwork, Kind::Rwork], Arc::clone(&ground)).await?;
    let client = Client::new(Arc::new(broker.clone()), Arc::new(backend.clone()));
    let (up, is_up) = watch::channel(true);
    let producing = tokio::spawn(produce_mix(Producer::new(client)?, Arc::new(broker.clone()), scale, is_up));
    Progress::new(journal.reader()).reach(scale.tasks / 4).await;
    up.send_replace(false);
    master.kill_9()?;
    let mut redis = replica.connect(0).await?;
    let () = cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut redis).await?;
    proxy.lead_to(replica.port());
    up.send_replace(true);
    let producer = producing.await??;
    replica.until(0, is_empty).await?;
    crew.end().await?;
    let kills = std::mem::take(&mut crew.kills);
    let log = ground.site.history_log();
    let history = History::gather(producer, &log, kills, journal, &broker, &backend).await?;
    let verdict = judge(&history);
    let (took, counts) = (began.elapsed().as_secs_f64(), Counts(&verdict));
    say(format_args!("chaos of a fail-over: one in {took:.1} s, counted apart: {counts}\n{verdict}"));
    anyhow::ensure!(history.left == 0, "{} messages are stuck", history.left);
    Ok(())
}
