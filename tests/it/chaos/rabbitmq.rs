//! P1 and P2 on RabbitMQ, with classic and with quorum queues: two rwork workers and one of Celery's on one queue; each second
//! every connection is closed, and every other one of the three is killed, too; the broker is stopped and started, killed,
//! and starved of memory. Every message that was accepted must have its one result, and nothing may run twice but what was in
//! somebody's hands at a cut.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rwork_amqp::{Amqp, QueueType};
use rwork_client::Client;
use rwork_protocol::Timestamp;
use rwork_redis::Redis;
use rwork_tests::history::{Beside, History, Outage, Producer, judge};
use rwork_tests::journal::Journal;
use rwork_tests::process::{is_full_run, say, unless_it_hangs};
use rwork_tests::rabbitmq::{Queue, RabbitServer, Room};
use rwork_tests::redis::RedisServer;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::crew::{Crew, Ground};
use super::{BATCH, REDELIVERY_MAX, produce_through_outages};

/// All connections are closed so often, and somebody is killed half as often.
const CUT_EVERY: Duration = Duration::from_secs(1);

/// A worker knows so soon that its connection is gone, on a busy machine.
const KNOWN_WITHIN: Duration = Duration::from_millis(300);

/// How much of it.
struct Scale {
    tasks: u64,
    /// A batch is sent so often, whatever becomes of the workers meanwhile.
    batch_every: Duration,
    /// How long the server has no memory left.
    alarm: Duration,
}

const SHORT: Scale =
    Scale { tasks: 3_000, batch_every: Duration::from_millis(600), alarm: Duration::from_secs(2) };
const FULL: Scale =
    Scale { tasks: 50_000, batch_every: Duration::from_millis(120), alarm: Duration::from_secs(10) };

impl Scale {
    /// The numbers of the cuts at which something befalls the server itself. Each takes longer than a cut should, so that
    /// they are spread over most of the run.
    fn of_the_server(&self) -> [u64; 3] {
        let seconds = self.tasks / BATCH * self.batch_every.as_millis() as u64 / 1_000;
        [seconds / 8, seconds / 4, seconds * 3 / 8]
    }
}

/// A kill waits so long for messages that wait although some are held: all workers have their hands full then.
const HANDS_FULL_WITHIN: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_on_rabbitmq_loses_nothing_with_classic_queues() -> anyhow::Result<()> {
    chaos(QueueType::Classic).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_on_rabbitmq_loses_nothing_with_quorum_queues() -> anyhow::Result<()> {
    chaos(QueueType::Quorum).await
}

async fn chaos(queues: QueueType) -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    let journal = Journal::default();
    say(format_args!("chaos on RabbitMQ, {} queues: {} tasks", queues.as_str(), scale.tasks));
    unless_it_hangs(&journal, run(queues, &scale, &journal)).await
}

/// The server and what is told to it.
struct Broker {
    server: Arc<RabbitServer>,
    vhost: String,
    up: watch::Sender<bool>,
    alarm: Duration,
    /// When there were no connections: what a worker still begins then was in its hands, and what it ends then it can't ack.
    cuts: Vec<Outage>,
}

async fn run(queues: QueueType, scale: &Scale, journal: &Journal) -> anyhow::Result<()> {
    let began = Instant::now();
    let server = Arc::new(RabbitServer::start()?);
    let vhost = server.fresh_vhost().await?;
    let (url, results) = (server.url(&vhost), RedisServer::shared().url(RedisServer::fresh_database()));
    let kind = queues.as_str();
    // Each closed connection counts as a delivery of all that was held; nothing here is a message that kills workers.
    let ours = format!("task_default_queue_type = \"{kind}\"\ntask_deliveries_max = 1000");
    let celerys = match queues {
        QueueType::Quorum => json!({"task_default_queue_type": "quorum"}),
        QueueType::Classic => json!({}),
    };
    let ground = Arc::new(Ground::new(journal, url.clone(), results.clone(), &ours, celerys)?);
    let mut options = rwork_amqp::Options::parse(&url, rwork_amqp::Role::Broker)?;
    options.default_queue_type = queues;
    let broker = Amqp::connect(options).await?;
    let backend = Redis::connect(rwork_redis::Options::parse(&results, rwork_redis::Role::Backend)?).await?;

    let mut crew = Crew::start(Arc::clone(&ground)).await?;
    let client = Client::new(Arc::new(broker.clone()), Arc::new(backend.clone()));
    let (up, is_up) = watch::channel(true);
    let mut place = Broker { server, vhost, up, alarm: scale.alarm, cuts: Vec::new() };
    let mut producing =
        tokio::spawn(produce_through_outages(Producer::new(client)?, scale.tasks, scale.batch_every, is_up));

    let mut cuts = 0;
    let mut pace = interval(CUT_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut produced = None;
    // On a busy machine cuts take longer than they should: what is to befall the server befalls it all the same.
    while produced.is_none() || cuts <= scale.of_the_server()[2] {
        tokio::select! {
            producer = &mut producing, if produced.is_none() => produced = Some(producer??),
            _ = pace.tick() => {
                cuts += 1;
                place.cut(cuts, scale, &mut crew).await?;
            }
        }
    }
    let Some(producer) = produced else { anyhow::bail!("nothing was produced") };
    crew.all_up().await?;
    place.server.until(&place.vhost, |queues| queues.iter().all(Queue::is_empty)).await?;
    crew.end().await?;
    let took = began.elapsed().as_secs_f64();

    let (kills, celery) = (crew.kills, crew.celery);
    let killed = kills.len();
    let log = ground.site.history_log();
    let mut history = History::gather(producer, &log, kills, journal, &broker, &backend).await?;
    let closed = place.cuts.len();
    history.beside =
        Some(Beside { outages: place.cuts, celery, held_by_connections: true, ..Beside::default() });
    let verdict = judge(&history);
    say(format_args!(
        "chaos on RabbitMQ, {kind} queues: {killed} kills, {closed} other cuts, in {took:.1} s\n{verdict}"
    ));
    if !verdict.faults.is_empty() {
        say(format_args!("{}", history.around(&verdict)));
    }
    verdict.clean()?;
    anyhow::ensure!(verdict.accepted as u64 == scale.tasks, "expected {} accepted tasks", scale.tasks);
    anyhow::ensure!(verdict.redelivered > 0, "no kill met a worker that held a message: nothing was shown");
    // The short form runs beside other tests on a busy machine: it judges no times.
    if is_full_run() {
        // While there is an alarm the server takes no copy, by which a delivery is counted on classic queues.
        let most = REDELIVERY_MAX + scale.alarm;
        let took = verdict.redelivery_max;
        anyhow::ensure!(took <= most, "redelivery took {took:?}");
    }
    Ok(())
}

impl Broker {
    /// The next thing to happen.
    async fn cut(&mut self, number: u64, scale: &Scale, crew: &mut Crew) -> anyhow::Result<()> {
        let [stop, kill, starve] = scale.of_the_server();
        if number == stop {
            self.outage(crew, async |server| {
                server.stop_app().await?;
                server.start_app().await
            })
            .await
        } else if number == kill {
            self.outage(crew, async |server| {
                tokio::task::spawn_blocking(move || {
                    server.kill_9()?;
                    server.start_again()
                })
                .await?
            })
            .await
        } else if number == starve {
            self.server.starve(Room::Memory).await?;
            sleep(self.alarm).await;
            self.server.feed(Room::Memory).await
        } else {
            // First: once its connection is closed a worker holds nothing that a kill could cost. Nor does one that waits.
            if !number.is_multiple_of(2) {
                let is_held =
                    |queues: &[Queue]| queues.iter().any(|queue| queue.ready > 0 && queue.unsettled > 0);
                let _ = timeout(HANDS_FULL_WITHIN, self.server.until(&self.vhost, is_held)).await;
                crew.kill_one().await?;
            }
            let from = now();
            self.server.close_connections(&self.vhost, "chaos").await?;
            self.note(from);
            Ok(())
        }
    }

    /// All connections went since then, and the workers know it a little later.
    fn note(&mut self, from: Timestamp) {
        self.cuts.push(Outage { from, to: now().plus(KNOWN_WITHIN) });
    }

    /// Something that takes the server away for a while. A worker that is only starting would meet it, too, which is shown
    /// elsewhere.
    async fn outage(
        &mut self,
        crew: &mut Crew,
        happens: impl AsyncFnOnce(Arc<RabbitServer>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        crew.all_up().await?;
        self.up.send_replace(false);
        let from = now();
        happens(Arc::clone(&self.server)).await?;
        self.note(from);
        self.up.send_replace(true);
        Ok(())
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
