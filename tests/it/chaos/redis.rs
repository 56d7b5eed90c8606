//! Nothing lost and nothing twice on Redis: two rwork workers and one of Celery's on one queue; every two seconds one of the
//! workers is killed or stands still, or connections are cut, or the server pauses, restarts or has no room.
//!
//! Celery's worker can lose a message by itself: kombu pops it and notes it in two steps. Such a loss is excused only where
//! the server's own account of every write proves it ([`rwork_tests::history::ledger`]), and is shown beside the others. So is
//! a task that Celery's worker ends as failed because its own connection is lost, and one that it runs again then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ::redis::aio::MultiplexedConnection;
use ::redis::cmd;
use rwork_client::Client;
use rwork_protocol::Timestamp;
use rwork_redis::{Options, Redis, Role};
use rwork_tests::binary::before;
use rwork_tests::history::{Beside, History, Outage, Producer, judge, ledger};
use rwork_tests::journal::Journal;
use rwork_tests::process::{say, seed, unless_it_hangs};
use rwork_tests::proxy::Proxy;
use rwork_tests::redis::{self, RedisServer};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::crew::{Crew, Ground};
use super::faults::{Counts, HELD_MIN, HELD_WITHIN, Happening, Scale, Schedule, produce_mix};

/// Lost messages are looked for so often, in seconds; kombu's default is 100.
const RESTORE_INTERVAL: u32 = 1;
/// A worker that is killed while it restores keeps all others from it for so many seconds; kombu's default is 300.
const MUTEX_EXPIRE: u32 = 3;

const HAPPENINGS: [Happening; 7] = [
    Happening::Kill,
    Happening::Stop,
    Happening::Cut,
    Happening::Pause,
    // Not each one meets a worker that holds something.
    Happening::Kill,
    Happening::Restart,
    Happening::Full,
];

/// Beside a worker of the edition before, which takes a lease that ended by the server's clock for a death: nothing lasts as
/// long as a lease then.
const HAPPENINGS_BESIDE: [Happening; 3] = [Happening::Kill, Happening::Cut, Happening::Restart];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_faults_on_redis_lose_and_double_nothing() -> anyhow::Result<()> {
    let journal = Journal::default();
    let seed = seed()?;
    let scale = Scale::wanted();
    say(format_args!("chaos of faults on Redis: {} tasks, RWORK_SEED={seed}", scale.tasks));
    unless_it_hangs(&journal, run(scale, seed, &journal)).await
}

async fn run(scale: Scale, seed: u64, journal: &Journal) -> anyhow::Result<()> {
    let began = Instant::now();
    // A server that loses nothing it has answered, and keeps account of every write.
    let more = ["--auto-aof-rewrite-percentage", "0"].map(str::to_owned).to_vec();
    let options = redis::Options { append_only: true, more, ..redis::Options::default() };
    let server = Arc::new(RedisServer::start(options)?);
    let proxy = Proxy::before(server.port())?;
    let url = server.url(0);
    let ground = Arc::new(ground(journal, &url, &proxy, scale)?);
    // This process's own connections.
    let broker = Redis::connect(Options::parse(&url, Role::Broker)?).await?;
    let backend = Redis::connect(Options::parse(&url, Role::Backend)?).await?;
    let mut crew = Crew::start(Arc::clone(&ground)).await?;
    let client = Client::new(Arc::new(broker.clone()), Arc::new(backend.clone()));
    let (up, is_up) = watch::channel(true);
    let mut producing =
        tokio::spawn(produce_mix(Producer::new(client)?, Arc::new(broker.clone()), scale, is_up));
    let mut place = Place { server: Arc::clone(&server), proxy, scale, up, outages: Vec::new() };
    let happenings: &[Happening] = if before().is_some() { &HAPPENINGS_BESIDE } else { &HAPPENINGS };
    let mut schedule = Schedule::new(happenings, seed);
    let mut pace = interval(scale.every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut produced = None;
    // On a busy machine all this takes longer than it should: everything happens once all the same.
    while produced.is_none() || schedule.rounds == 0 {
        tokio::select! {
            producer = &mut producing, if produced.is_none() => produced = Some(producer??),
            _ = pace.tick() => {
                let next = schedule.next();
                place.happens(next, &mut crew, &mut schedule.rng).await?;
            }
        }
    }
    let Some(producer) = produced else { anyhow::bail!("nothing was produced") };
    crew.all_up().await?;
    crew.all_go_on().await;
    server.until(0, is_empty).await?;
    crew.end().await?;
    let took = began.elapsed().as_secs_f64();

    let (kills, celery, stops) = (crew.kills, crew.celery, crew.stops);
    let (killed, stopped) = (kills.len(), stops.len());
    let log = ground.site.history_log();
    let mut history = History::gather(producer, &log, kills, journal, &broker, &backend).await?;
    history.stops = stops;
    let dropped_by_kombu = dropped(&history, &server)?;
    history.beside =
        Some(Beside { outages: place.outages, celery, dropped_by_kombu, held_by_connections: false });
    let verdict = judge(&history);
    let counts = Counts(&verdict);
    say(format_args!(
        "chaos of faults on Redis: {killed} kills, {stopped} stops, {} rounds in {took:.1} s: {counts}\n{verdict}",
        schedule.rounds
    ));
    if !verdict.faults.is_empty() {
        say(format_args!("{}", history.around(&verdict)));
    }
    verdict.clean()?;
    anyhow::ensure!(verdict.redelivered > 0, "no kill met a worker that held a message: nothing was shown");
    Ok(())
}

fn ground(journal: &Journal, url: &str, proxy: &Proxy, scale: Scale) -> anyhow::Result<Ground> {
    let (timeout, lease) = (scale.visibility_timeout, scale.lease);
    let ours = format!(
        "[broker_transport_options]\nvisibility_timeout = {timeout}\nsocket_timeout = 2\n\
         unacked_restore_interval = {RESTORE_INTERVAL}\nunacked_restore_throttle = 1\n\
         unacked_mutex_expire = {MUTEX_EXPIRE}\n[redis]\nlease = {lease}"
    );
    // Celery's worker reaches the server without the proxy: what a cut does to it is not the matter here.
    let celerys = json!({"broker_url": url, "result_backend": url, "broker_transport_options": {
        "visibility_timeout": timeout,
        "unacked_restore_interval": RESTORE_INTERVAL,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": MUTEX_EXPIRE,
    }});
    let near = format!("redis://127.0.0.1:{}/0", proxy.port());
    Ground::new(journal, near.clone(), near, &ours, celerys)
}

/// The server, and what is told to it.
struct Place {
    server: Arc<RedisServer>,
    proxy: Proxy,
    scale: Scale,
    up: watch::Sender<bool>,
    /// When the server did not serve, which Celery's worker can't live with.
    outages: Vec<Outage>,
}

impl Place {
    async fn happens(
        &mut self,
        happening: Happening,
        crew: &mut Crew,
        rng: &mut fastrand::Rng,
    ) -> anyhow::Result<()> {
        let Scale { stop, pause, full, .. } = self.scale;
        match happening {
            Happening::Kill => {
                // A kill of a worker that holds nothing shows nothing. While nobody serves, nobody can look.
                let _ = timeout(HELD_WITHIN, self.server.until(0, is_held)).await;
                crew.kill_one().await
            }
            Happening::Stop => crew.stop_one(rng, stop).await,
            Happening::Cut => {
                self.proxy.cut_all();
                Ok(())
            }
            Happening::Pause => {
                self.outage(async |server| {
                    server.pause()?;
                    sleep(pause).await;
                    server.resume()
                })
                .await
            }
            Happening::Restart => {
                self.outage(async |server| {
                    tokio::task::spawn_blocking(move || {
                        server.kill_9()?;
                        server.start_again()
                    })
                    .await?
                })
                .await
            }
            Happening::Full => {
                self.outage(async |server| {
                    let limit = async |bytes: u64| -> anyhow::Result<()> {
                        let mut redis = server.connect(0).await?;
                        Ok(cmd("CONFIG")
                            .arg("SET")
                            .arg("maxmemory")
                            .arg(bytes)
                            .query_async(&mut redis)
                            .await?)
                    };
                    limit(1).await?;
                    sleep(full).await;
                    limit(0).await
                })
                .await
            }
        }
    }

    async fn outage(
        &mut self,
        happens: impl AsyncFnOnce(Arc<RedisServer>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let now = || Timestamp::from_system(SystemTime::now());
        self.up.send_replace(false);
        let from = now();
        happens(Arc::clone(&self.server)).await?;
        self.outages.push(Outage { from, to: now() });
        self.up.send_replace(true);
        Ok(())
    }
}

/// All workers have something in their hands, as far as that can be told.
async fn is_held(redis: &mut MultiplexedConnection) -> anyhow::Result<bool> {
    let held: usize = cmd("HLEN").arg("unacked").query_async(redis).await?;
    Ok(held >= HELD_MIN)
}

/// Nothing is waiting and nothing is held: neither by the living nor by the dead.
pub(super) async fn is_empty(redis: &mut MultiplexedConnection) -> anyhow::Result<bool> {
    let (ready, held): (u64, u64) = ::redis::pipe().llen("celery").hlen("unacked").query_async(redis).await?;
    Ok(ready + held == 0)
}

/// What is missing and was lost by kombu. The server's account is long: it is read only when something is missing.
fn dropped(history: &History, server: &RedisServer) -> anyhow::Result<BTreeSet<u64>> {
    let missing = history.accepted.iter().filter(|(number, _)| !history.records.contains_key(number));
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(BTreeSet::new());
    }
    let dropped = ledger::dropped_by_kombu(server.directory())?;
    Ok(missing
        .into_iter()
        .filter(|(_, id)| dropped.contains(id.as_str()))
        .map(|(number, _)| *number)
        .collect())
}
