//! Many delayed tasks at once: they wait in Redis and not in the worker, and each begins when it is due, once.
//!
//! They are sent as Celery's own clients send them: into the queue, with an `eta`. The worker takes every one of them and
//! parks it. `RWORK_CHAOS=full` for the long form, which is also judged by how late the last of them is.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use rwork_broker::{Broker, Publish, Route};
use rwork_client::Client;
use rwork_protocol::{NewTask, QueueName, TaskName, Timestamp};
use rwork_redis::{Options, Redis, Role};
use rwork_tests::binary::rwork_in;
use rwork_tests::history::{Line, Producer, Word, lines};
use rwork_tests::journal::Journal;
use rwork_tests::process::{Site, is_full_run, say, unless_it_hangs};
use rwork_tests::redis::{self as server, RedisServer};
use tokio::process::{Child, Command};

/// What a worker's memory may grow by, in MiB, at its peak.
const GROWTH_MAX: f64 = 20.0;
/// How late a task may begin on a machine that has nothing else to do.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Tasks before the first look at its memory: whatever is made once is made by then.
const WARM_UP: u64 = 2_000;
/// Messages of one send.
const BATCH: usize = 500;

/// How much of it.
struct Scale {
    tasks: u64,
    /// From the first send until the first is due; by then all of them are parked.
    first_in: Duration,
    /// From the first due to the last.
    over: Duration,
    slots: &'static str,
}

/// Longer than parking a batch takes on a busy machine.
const TOLD_APART: Duration = Duration::from_secs(1);

/// One slot: so that they begin one after the other.
const SHORT: Scale =
    Scale { tasks: 5_000, first_in: Duration::from_secs(12), over: Duration::from_secs(3), slots: "1" };
const FULL: Scale =
    Scale { tasks: 200_000, first_in: Duration::from_secs(90), over: Duration::from_secs(90), slots: "2" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_tasks_wait_in_redis_and_begin_in_time() -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    unless_it_hangs(&Journal::default(), run(&scale)).await
}

async fn run(scale: &Scale) -> anyhow::Result<()> {
    let (server, site) = (RedisServer::start(server::Options::default())?, Site::new()?);
    let broker = Redis::connect(Options::parse(&server.url(0), Role::Broker)?).await?;
    let mut worker = start(&site, &server, scale.slots)?;
    warm_up(&broker, &server).await?;
    std::fs::remove_file(site.history_log())?;
    let memory = Memory::of(&worker)?;

    let first = Timestamp::from_system(SystemTime::now() + scale.first_in);
    let due = send(&broker, scale, first).await?;
    server.until(0, async |redis| Ok(parked(redis).await? == scale.tasks)).await?;
    let spare = first.since(Timestamp::from_system(SystemTime::now()));
    let waiting = memory.growth()?;
    server.until(0, is_empty).await?;
    let whole = memory.growth()?;
    worker.kill().await?;

    let started: Vec<Line> =
        lines(&site.history_log())?.into_iter().filter(|line| line.word == Word::Start).collect();
    let lateness = judge(&started, &due)?;
    say(format_args!(
        "delayed: {} tasks, all parked {:.1} s before the first was due; memory grew by {waiting:.1} MiB until then, \
         by {whole:.1} MiB in all; late by {} ms (half of them), {} ms (99 in 100), {} ms (the last)",
        scale.tasks,
        spare.as_secs_f64(),
        percentile(&lateness, 50),
        percentile(&lateness, 99),
        percentile(&lateness, 100),
    ));
    anyhow::ensure!(waiting < GROWTH_MAX, "memory grew by {waiting:.1} MiB while they waited");
    anyhow::ensure!(whole < GROWTH_MAX, "memory grew by {whole:.1} MiB");
    if is_full_run() {
        let worst = Duration::from_millis(percentile(&lateness, 100));
        anyhow::ensure!(worst <= LATE_MAX, "a task began {worst:?} late");
    } else {
        in_order(&started, &due)?;
    }
    Ok(())
}

/// A worker that says nothing of single tasks.
fn start(site: &Site, server: &RedisServer, slots: &str) -> anyhow::Result<Child> {
    let mut command = rwork_in(site.path());
    let url = server.url(0);
    command.args(["run", "-l", "warn", "--quiet", "-c", slots, "--broker", &url, "--backend", &url]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Command::from(command).kill_on_drop(true).spawn().context("failed to start `rwork run`")
}

async fn warm_up(broker: &Redis, server: &RedisServer) -> anyhow::Result<()> {
    let backend = Redis::connect(Options::parse(&server.url(0), Role::Backend)?).await?;
    let mut producer = Producer::new(Client::new(Arc::new(broker.clone()), Arc::new(backend)))?;
    for id in producer.send(WARM_UP, 1).await? {
        producer.client().wait(&id, None).await?;
    }
    Ok(())
}

/// Sends all of them, shuffled by their due times, and returns when each is due.
async fn send(broker: &Redis, scale: &Scale, first: Timestamp) -> anyhow::Result<BTreeMap<u64, Timestamp>> {
    let (task, queue) = (TaskName::new("history.run")?, QueueName::new("celery")?);
    let step = scale.over.as_millis() as f64 / scale.tasks as f64;
    let due_of = |number: u64| Timestamp::from_millis(first.as_millis() + (number as f64 * step) as i64);
    let mut numbers: Vec<u64> = (0..scale.tasks).collect();
    fastrand::shuffle(&mut numbers);
    for part in numbers.chunks(BATCH) {
        let mut batch = Vec::with_capacity(part.len());
        for number in part {
            let mut task = NewTask::new(task.clone()).args(format!("[{number}, 1]"));
            task.eta = Some(due_of(*number));
            let message = task.build(Timestamp::from_system(SystemTime::now()))?;
            batch.push(Publish { route: Route::queue(&queue), message: message.encode(), not_before: None });
        }
        broker.publish(batch).await?;
    }
    Ok((0..scale.tasks).map(|number| (number, due_of(number))).collect())
}

async fn parked(redis: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    Ok(redis::cmd("ZCARD").arg("rwork.delayed.celery").query_async(redis).await?)
}

async fn is_empty(redis: &mut MultiplexedConnection) -> anyhow::Result<bool> {
    // In one step: what is due moves between them.
    let mut all = redis::pipe();
    all.atomic().llen("celery").hlen("unacked").zcard("rwork.delayed.celery");
    let (ready, held, parked): (u64, u64, u64) = all.query_async(redis).await?;
    Ok(ready + held + parked == 0)
}

/// How late each began, in milliseconds, the least first.
fn judge(started: &[Line], due: &BTreeMap<u64, Timestamp>) -> anyhow::Result<Vec<u64>> {
    let mut first: BTreeMap<u64, Timestamp> = BTreeMap::new();
    for line in started {
        let again = first.insert(line.number, line.at);
        anyhow::ensure!(again.is_none(), "task {} began twice", line.number);
    }
    let mut lateness = Vec::with_capacity(due.len());
    for (number, due) in due {
        let at = first.get(number).with_context(|| format!("task {number} never began"))?;
        let late = at.as_millis() - due.as_millis();
        anyhow::ensure!(late >= 0, "task {number} began {} ms before it was due", -late);
        lateness.push(late as u64);
    }
    lateness.sort_unstable();
    Ok(lateness)
}

/// By their due times, as far as they are told apart: each is parked with the time that was left when it was, and the
/// message to the server takes a part of that.
fn in_order(started: &[Line], due: &BTreeMap<u64, Timestamp>) -> anyhow::Result<()> {
    let Some(mut latest) = started.first().map(|line| line.number) else { return Ok(()) };
    for line in started {
        let early_by = due[&latest].since(due[&line.number]);
        let number = line.number;
        anyhow::ensure!(
            early_by < TOLD_APART,
            "task {number} was due {early_by:?} before {latest} and began after it"
        );
        if early_by.is_zero() {
            latest = number;
        }
    }
    Ok(())
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// Resident memory of a process, against what it was.
struct Memory {
    process: u32,
    before: f64,
}

impl Memory {
    fn of(worker: &Child) -> anyhow::Result<Self> {
        let process = worker.id().context("the worker has ended")?;
        // Forgets the peak that the process had so far.
        std::fs::write(format!("/proc/{process}/clear_refs"), "5")?;
        let mut memory = Self { process, before: 0.0 };
        memory.before = memory.mib("VmRSS")?;
        Ok(memory)
    }

    /// What its peak is above what it had, in MiB.
    fn growth(&self) -> anyhow::Result<f64> {
        Ok(self.mib("VmHWM")? - self.before)
    }

    fn mib(&self, name: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.with_context(|| format!("no `{name}`"))?.trim().trim_end_matches(" kB");
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}
