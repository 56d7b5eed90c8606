//! P1 and P2 on Redis: two rwork workers and one of Celery's on one queue, one of the three killed every second, the server
//! killed twice; every message that was accepted must have its one result, and nothing may run twice but what ran at a kill.
//!
//! Celery's worker can lose a message by itself: kombu pops it and notes it in two steps. Such a loss is excused only where
//! the server's own account of every write proves it ([`rwork_tests::history::ledger`]), and is shown beside the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::redis::aio::MultiplexedConnection;
use rwork_client::Client;
use rwork_protocol::Timestamp;
use rwork_redis::{Options, Redis, Role};
use rwork_tests::history::{Beside, History, Outage, Producer, judge, ledger};
use rwork_tests::journal::Journal;
use rwork_tests::process::{is_full_run, say, seed, unless_it_hangs};
use rwork_tests::redis::{self, RedisServer};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::crew::{Crew, Ground};
use super::{BATCH, REDELIVERY_MAX, produce_through_outages};

/// What Celery's worker held when it was killed comes back after so many seconds, by whoever looks first.
const VISIBILITY_TIMEOUT: u32 = 6;
/// And is looked for so often, in seconds; kombu's default is 100.
const RESTORE_INTERVAL: u32 = 1;
/// A worker that is killed while it restores keeps all others from it for so many seconds; kombu's default is 300.
const MUTEX_EXPIRE: u32 = 3;

/// Somebody is killed so often.
const KILL_EVERY: Duration = Duration::from_secs(1);

/// How much of it.
struct Scale {
    tasks: u64,
    /// A batch is sent so often, whatever becomes of the workers meanwhile.
    batch_every: Duration,
    outages: u32,
}

const SHORT: Scale = Scale { tasks: 2_500, batch_every: Duration::from_millis(300), outages: 1 };
const FULL: Scale = Scale { tasks: 50_000, batch_every: Duration::from_millis(120), outages: 2 };

impl Scale {
    /// The numbers of the kills after which the server is killed, too: spread over the whole run.
    fn outages_after(&self) -> BTreeSet<u32> {
        let seconds = (self.tasks / BATCH) as u32 * self.batch_every.as_millis() as u32 / 1_000;
        (1..=self.outages).map(|outage| seconds * outage / (self.outages + 1)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_on_redis_loses_nothing_and_repeats_only_what_ran() -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    let journal = Journal::default();
    let seed = seed()?;
    say(format_args!("chaos on Redis: {} tasks, RWORK_SEED={seed}", scale.tasks));
    unless_it_hangs(&journal, run(&scale, seed, &journal)).await
}

async fn run(scale: &Scale, seed: u64, journal: &Journal) -> anyhow::Result<()> {
    let began = Instant::now();
    // A server that loses nothing it has answered, and keeps account of every write.
    let more = ["--auto-aof-rewrite-percentage", "0"].map(str::to_owned).to_vec();
    let options = redis::Options { append_only: true, more, ..redis::Options::default() };
    let server = Arc::new(RedisServer::start(options)?);
    let url = server.url(0);
    let ground = Arc::new(ground(journal, &url)?);
    // This process's own connections.
    let broker = Redis::connect(Options::parse(&url, Role::Broker)?).await?;
    let backend = Redis::connect(Options::parse(&url, Role::Backend)?).await?;
    let mut crew = Crew::start(Arc::clone(&ground)).await?;
    let client = Client::new(Arc::new(broker.clone()), Arc::new(backend.clone()));
    let (up, is_up) = watch::channel(true);
    let mut producing =
        tokio::spawn(produce_through_outages(Producer::new(client)?, scale.tasks, scale.batch_every, is_up));

    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut outages, mut seconds) = (Vec::new(), 0);
    let mut pace = interval(KILL_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let producer = loop {
        tokio::select! {
            producer = &mut producing => break producer??,
            _ = pace.tick() => {
                seconds += 1;
                crew.kill_one(&mut rng).await?;
                if scale.outages_after().contains(&seconds) {
                    outages.push(restart(&server, &mut crew, &up).await?);
                }
            }
        }
    };
    crew.all_up().await?;
    server.until(0, is_empty).await?;
    crew.end().await?;
    let took = began.elapsed().as_secs_f64();

    let (kills, celery) = (crew.kills, crew.celery);
    let (killed, celerys) = (kills.len(), kills.iter().filter(|kill| celery.contains(&kill.node)).count());
    let log = ground.site.history_log();
    let mut history = History::gather(producer, &log, kills, journal, &broker, &backend).await?;
    let dropped_by_kombu = dropped(&history, &server)?;
    let stops = outages.len();
    history.beside = Some(Beside { outages, celery, dropped_by_kombu });
    let verdict = judge(&history);
    say(format_args!(
        "chaos on Redis: {killed} kills, {celerys} of them Celery's, {stops} of the server, in {took:.1} s\n{verdict}"
    ));
    verdict.clean()?;
    anyhow::ensure!(verdict.accepted as u64 == scale.tasks, "expected {} accepted tasks", scale.tasks);
    anyhow::ensure!(stops as u32 == scale.outages, "expected {} outages", scale.outages);
    anyhow::ensure!(verdict.redelivered > 0, "no kill met a worker that held a message: nothing was shown");
    // The short form runs beside other tests on a busy machine: it judges no times.
    if is_full_run() {
        let took = verdict.redelivery_max;
        anyhow::ensure!(took <= REDELIVERY_MAX, "redelivery took {took:?}");
    }
    Ok(())
}

fn ground(journal: &Journal, url: &str) -> anyhow::Result<Ground> {
    let ours = format!(
        "[broker_transport_options]\nvisibility_timeout = {VISIBILITY_TIMEOUT}\n\
         unacked_restore_interval = {RESTORE_INTERVAL}\nunacked_restore_throttle = 1\n\
         unacked_mutex_expire = {MUTEX_EXPIRE}"
    );
    let celerys = json!({"broker_transport_options": {
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": RESTORE_INTERVAL,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": MUTEX_EXPIRE,
    }});
    Ground::new(journal, url.to_owned(), url.to_owned(), &ours, celerys)
}

/// Kills the server in the middle of everything and starts it again. A worker that is only starting would find no server
/// and leave, which is not what is to be shown.
async fn restart(
    server: &Arc<RedisServer>,
    crew: &mut Crew,
    up: &watch::Sender<bool>,
) -> anyhow::Result<Outage> {
    crew.all_up().await?;
    up.send_replace(false);
    let now = || Timestamp::from_system(SystemTime::now());
    let (from, server) = (now(), Arc::clone(server));
    let restarted = tokio::task::spawn_blocking(move || {
        server.kill_9()?;
        server.start_again()
    });
    restarted.await??;
    up.send_replace(true);
    Ok(Outage { from, to: now() })
}

/// Nothing is waiting and nothing is held: neither by the living nor by the dead.
async fn is_empty(redis: &mut MultiplexedConnection) -> anyhow::Result<bool> {
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
