//! Round trips: a send and the wait for its result, one at a time, on an idle worker.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rwork_client::Client;
use rwork_protocol::{NewTask, QueueName, State, TaskName};

use crate::ground::{Ground, QUEUE};
use crate::peers::{Peer, client};

/// Before the first that counts: the worker is up, connections and subscriptions are made.
const WARM_UP: usize = 200;
/// No trip takes so long on the slowest machine; only a hang meets it.
const HANG: Duration = Duration::from_secs(60);

/// One round, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trips {
    /// Half of them took no longer.
    p50: f64,
    /// All but one in a hundred took no longer.
    p99: f64,
}

impl Trips {
    fn of(mut samples: Vec<f64>) -> anyhow::Result<Self> {
        samples.sort_by(f64::total_cmp);
        let at =
            |percent: usize| samples.get((samples.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let (p50, p99) = at(50).zip(at(99)).context("there was no round trip")?;
        Ok(Self { p50, p99 })
    }
}

/// With rwork's own client, which is in this process.
pub(crate) async fn by_rwork(
    ground: &impl Ground,
    worker: &Peer,
    client: &Client,
    count: usize,
) -> anyhow::Result<Trips> {
    let serving = ground.serve(worker, WARM_UP).await?;
    let (task, queue) = (TaskName::new("noop.noop")?, QueueName::new(QUEUE)?);
    let mut samples = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let began = Instant::now();
        let id = client.send(NewTask::new(task.clone()), &queue).await?;
        let record = client.wait(&id, Some(HANG)).await?;
        let took = began.elapsed();
        anyhow::ensure!(
            record.status == State::Success,
            "a task that does nothing ended as {}",
            record.status
        );
        if number >= WARM_UP {
            samples.push(took.as_secs_f64() * 1e3);
        }
    }
    serving.end()?;
    Trips::of(samples)
}

/// With Celery's client: `noop.delay().get()`.
pub(crate) async fn by_celery(ground: &impl Ground, worker: &Peer, count: usize) -> anyhow::Result<Trips> {
    let serving = ground.serve(worker, WARM_UP).await?;
    let mut command = tokio::process::Command::from(client(&ground.urls()));
    command.args(["trips", &count.to_string()]).kill_on_drop(true);
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "Celery's client failed: {}", output.status);
    serving.end()?;
    Trips::of(serde_json::from_slice(&output.stdout).context("Celery's client printed no numbers")?)
}

/// Of each round.
pub(crate) fn p50(rounds: &[Trips]) -> Vec<f64> {
    rounds.iter().map(|trips| trips.p50).collect()
}

/// Of each round.
pub(crate) fn p99(rounds: &[Trips]) -> Vec<f64> {
    rounds.iter().map(|trips| trips.p99).collect()
}
