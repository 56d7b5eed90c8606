//! P1 and P2 over `kill -9`: two workers and one producer on one embedded database; workers die at seeded points and come
//! back; every message that was accepted must have its one result, and nothing may run twice but what ran at a kill.
//!
//! `RWORK_CHAOS=full` for the long form, `RWORK_SEED=N` to choose the same victims at the same points again.

mod crew;
mod embedded;
mod failover;
mod faults;
mod rabbitmq;
mod redis;

use std::time::{Duration, Instant};

use rwork_tests::history::{History, Kill, Producer, Progress, judge};
use rwork_tests::journal::{Journal, Reader};
use rwork_tests::process::{Site, WorkerProcess, client, is_full_run, say, seed, unless_it_hangs};
use tokio::sync::watch;
use tokio::time::interval;

/// What the product promises: a message of a killed worker is handed to another one within this.
const REDELIVERY_MAX: Duration = Duration::from_secs(10);
/// Tasks in one send.
const BATCH: u64 = 100;
/// Steps that a task computes: long enough to be met by a kill, short enough for thousands.
const SPINS: u64 = 20_000;

/// The same beside servers that are killed, too: about a millisecond, so that those who live are busy and every kill meets
/// a message.
const BUSY_SPINS: u64 = 3_000_000;

/// How much of it.
struct Scale {
    tasks: u64,
    kills: u64,
    /// The producer stays ahead of the workers by so many, so that it goes on through most of the kills.
    ahead: u64,
}

const SHORT: Scale = Scale { tasks: 2_000, kills: 4, ahead: 800 };
const FULL: Scale = Scale { tasks: 20_000, kills: 20, ahead: 5_000 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_kills_lose_nothing_and_repeat_only_what_ran() -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    let journal = Journal::default();
    let seed = seed()?;
    say(format_args!("chaos: {} tasks, {} kills, RWORK_SEED={seed}", scale.tasks, scale.kills));
    unless_it_hangs(&journal, run(&scale, seed, &journal)).await
}

async fn run(scale: &Scale, seed: u64, journal: &Journal) -> anyhow::Result<()> {
    let began = Instant::now();
    let site = Site::new()?;
    let database = site.open()?;
    let mut pair = Pair::start(&site, journal).await?;
    let producing =
        tokio::spawn(produce(Producer::new(client(&database))?, scale.tasks, scale.ahead, journal.reader()));

    let mut rng = fastrand::Rng::with_seed(seed);
    let mut progress = Progress::new(journal.reader());
    for point in kill_points(scale, &mut rng) {
        progress.reach(point).await;
        pair.kill_one(rng.usize(..2)).await?;
    }
    let producer = producing.await??;
    for id in producer.accepted.values() {
        producer.client().wait(id, None).await?;
    }
    let kills = pair.end().await?;
    let took = began.elapsed();

    let killed = kills.len();
    let history =
        History::gather(producer, &site.history_log(), kills, journal, &database, &database).await?;
    let verdict = judge(&history);
    say(format_args!("chaos: {killed} kills in {:.1} s\n{verdict}", took.as_secs_f64()));
    verdict.clean()?;
    anyhow::ensure!(verdict.accepted as u64 == scale.tasks, "expected {} accepted tasks", scale.tasks);
    anyhow::ensure!(verdict.redelivered > 0, "no kill met a worker that held a message: nothing was shown");
    // The short form runs beside other tests on a busy machine: it judges no times.
    if is_full_run() {
        let took = verdict.redelivery_max;
        anyhow::ensure!(took <= REDELIVERY_MAX, "redelivery took {took:?}");
    }
    let damage = database.check_integrity().await?;
    anyhow::ensure!(damage.is_empty(), "the database is damaged: {damage:?}");
    Ok(())
}

/// Two workers, of which one is killed and started again under a new name.
struct Pair<'a> {
    site: &'a Site,
    journal: &'a Journal,
    workers: Vec<WorkerProcess>,
    kills: Vec<Kill>,
}

impl<'a> Pair<'a> {
    async fn start(site: &'a Site, journal: &'a Journal) -> anyhow::Result<Self> {
        let mut pair = Self { site, journal, workers: Vec::new(), kills: Vec::new() };
        for place in 0..2 {
            let worker = pair.worker(place).await?;
            pair.workers.push(worker);
        }
        Ok(pair)
    }

    /// One incarnation: its name says which, so that what it did can be told from what the others did.
    async fn worker(&self, place: usize) -> anyhow::Result<WorkerProcess> {
        let node = format!("w{place}-{}@chaos", self.kills.len());
        WorkerProcess::start(self.site, &node, &[], self.journal).await
    }

    async fn kill_one(&mut self, place: usize) -> anyhow::Result<()> {
        let victim = self.workers.remove(place);
        let node = victim.node().to_owned();
        self.kills.push(Kill { node, at: victim.kill_9().await? });
        let successor = self.worker(place).await?;
        self.workers.insert(place, successor);
        Ok(())
    }

    /// Ends both as a person would, and returns who was killed.
    async fn end(self) -> anyhow::Result<Vec<Kill>> {
        for worker in self.workers {
            let node = worker.node().to_owned();
            let status = worker.terminate().await?;
            anyhow::ensure!(status.success(), "the worker `{node}` left with {status}");
        }
        Ok(self.kills)
    }
}

/// One producer that never is further ahead than `ahead` tasks.
async fn produce(mut producer: Producer, tasks: u64, ahead: u64, log: Reader) -> anyhow::Result<Producer> {
    let mut progress = Progress::new(log);
    for sent in (0..tasks).step_by(BATCH as usize) {
        progress.reach((sent + BATCH).saturating_sub(ahead)).await;
        producer.send(BATCH.min(tasks - sent), SPINS).await?;
    }
    Ok(producer)
}

/// When to kill, in tasks done: spread over the whole run, none of them at its very end.
fn kill_points(scale: &Scale, rng: &mut fastrand::Rng) -> Vec<u64> {
    let part = scale.tasks / (scale.kills + 1);
    (0..scale.kills).map(|kill| kill * part + rng.u64(1..=part)).collect()
}

/// One producer that goes on sending; through an outage it waits for its end, as a person would.
async fn produce_through_outages(
    mut producer: Producer,
    tasks: u64,
    batch_every: Duration,
    mut is_up: watch::Receiver<bool>,
) -> anyhow::Result<Producer> {
    let mut pace = interval(batch_every);
    while (producer.accepted.len() as u64) < tasks {
        pace.tick().await;
        if !producer.send_or_doubt(BATCH, BUSY_SPINS).await? {
            is_up.wait_for(|is_up| *is_up).await?;
        }
    }
    Ok(producer)
}
