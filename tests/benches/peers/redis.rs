//! The ground on Redis: broker and results on one server.
//!
//! A whole queue is made under another name and put into place by one `RENAME` while the worker waits for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use redis::AsyncCommands as _;
use rwork_client::Client;
use rwork_protocol::TaskId;
use rwork_redis::{Options, Redis, Role};
use rwork_tests::child;
use serde_json::Value;
use tempfile::TempDir;

use crate::drain::{Drain, cpu, drain, rates};
use crate::ground::{Ground, Left, QUEUE, Serving, Urls};
use crate::peers::{self, Acks, Peer};
use crate::report::{Bound, Report, ratio};
use crate::results::Results;
use crate::trips::{self, Trips};
use crate::{options, say, trials};

/// Tasks per second in fresh sandboxes, results stored, acknowledged after: so many times Celery's prefork pool.
const OVER_PREFORK: f64 = 15.0;
/// The same beside the native Rust worker, which has neither sandbox nor results.
const OVER_NATIVE: f64 = 1.5;
/// Send, run, store and wake the client, in milliseconds, half of all.
const TRIP_MS: f64 = 0.5;

/// CPU time of the worker for one task, in microseconds.
const CPU_US: f64 = 25.0;

/// Where messages are until all of them are there.
const STAGED: &str = "bench.staged";
/// Messages of one push.
const PUSH: usize = 1_000;

/// Server and a directory to run in.
#[derive(Debug)]
pub(crate) struct OnRedis {
    results: Results,
    directory: TempDir,
    /// What Celery's client sent, cut where an id or a tag goes.
    template: Template,
}

impl OnRedis {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let results = Results::open().await?;
        let urls = Urls { broker: results.url(), backend: results.url() };
        peers::send(&urls)?;
        let message: String = results.redis().rpop(QUEUE, None).await?;
        Ok(Self { results, directory: tempfile::tempdir()?, template: Template::of(&message)? })
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let broker = Redis::connect(Options::parse(&self.results.url(), Role::Broker)?).await?;
        let backend = Redis::connect(Options::parse(&self.results.url(), Role::Backend)?).await?;
        Ok(Client::new(Arc::new(broker), Arc::new(backend)))
    }
}

impl Ground for OnRedis {
    fn urls(&self) -> Urls {
        Urls { broker: self.results.url(), backend: self.results.url() }
    }

    async fn start(&self, peer: &Peer) -> anyhow::Result<Serving> {
        self.results.clear().await?;
        Ok(Serving::new(child::spawn(peer.command(&self.urls(), self.directory.path())?)?))
    }

    async fn fill(&self, _: &Serving, tasks: usize) -> anyhow::Result<Vec<TaskId>> {
        let mut redis = self.results.redis();
        let ids: Vec<TaskId> = (0..tasks).map(|_| TaskId::generate()).collect();
        for part in ids.chunks(PUSH) {
            let messages: Vec<String> = part.iter().map(|id| self.template.fill(id.as_str())).collect();
            let () = redis.lpush(STAGED, messages).await?;
        }
        let () = redis.rename(STAGED, QUEUE).await?;
        Ok(ids)
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(2)
    }

    async fn left(&self, peer: &Peer) -> anyhow::Result<Left> {
        // Where the worker notes what it has taken.
        let held = if peer.is_native() { "_celery.celery_process_map" } else { "unacked" };
        let mut redis = self.results.redis();
        let (queued, held) = redis::pipe().llen(QUEUE).hlen(held).query_async(&mut redis).await?;
        Ok(Left { queued, held })
    }

    async fn verify(&self, ids: &[TaskId]) -> anyhow::Result<()> {
        self.results.verify(ids).await
    }
}

/// Measures, and adds the figures.
pub(crate) async fn measure(options: &options::Options, report: &mut Report) -> anyhow::Result<()> {
    let ground = OnRedis::open().await?;
    let cores = std::thread::available_parallelism()?.get();
    let candidates = [
        peers::prefork(cores, Acks::After),
        peers::prefork(2 * cores, Acks::After),
        peers::prefork(2 * cores, Acks::Before),
    ];
    let prefork = trials::best(&ground, candidates, options).await?;
    let native = trials::best(&ground, peers::native()?, options).await?.peer;
    let (ours, before, solo) = (peers::rwork(), peers::rwork_before(), peers::solo());
    let mut rounds = Rounds::default();
    for round in 1..=options.rounds {
        say(format_args!("measuring: redis, round {round} of {}: draining …", options.rounds));
        rounds.prefork.push(drain(&ground, &prefork.peer, prefork.tasks).await?);
        rounds.native.push(drain(&ground, &native, options.tasks).await?);
        rounds.ours.push(drain(&ground, &ours, options.tasks).await?);
        say(format_args!("measuring: redis, round {round} of {}: round trips …", options.rounds));
        rounds.own.push(trips::by_rwork(&ground, &ours, &ground.client().await?, options.trips).await?);
        if let Some(before) = &before {
            rounds.before.push(drain(&ground, before, options.tasks).await?);
            let client = ground.client().await?;
            rounds.own_before.push(trips::by_rwork(&ground, before, &client, options.trips).await?);
        }
        rounds.python.push(trips::by_celery(&ground, &ours, options.trips).await?);
        rounds.celery.push(trips::by_celery(&ground, &solo, options.trips).await?);
    }
    rounds.report(report, &prefork.peer.name, &native.name);
    Ok(())
}

/// Figures of all rounds.
#[derive(Debug, Default)]
struct Rounds {
    ours: Vec<Drain>,
    before: Vec<Drain>,
    prefork: Vec<Drain>,
    native: Vec<Drain>,
    own: Vec<Trips>,
    own_before: Vec<Trips>,
    python: Vec<Trips>,
    celery: Vec<Trips>,
}

impl Rounds {
    fn report(&self, report: &mut Report, prefork: &str, native: &str) {
        let (ours, slow, rust) = (rates(&self.ours), rates(&self.prefork), rates(&self.native));
        let (over_prefork, over_native) = (ratio(&ours, &slow), ratio(&ours, &rust));
        let trip = ratio(&trips::p50(&self.python), &trips::p50(&self.celery));
        let (p50, p99) = (trips::p50(&self.own), trips::p99(&self.own));
        let cpu = cpu(&self.ours);
        report.add("redis: rwork, fresh sandboxes, stored, acked after", "/s", ours.clone(), Bound::None);
        report.add(format!("redis: {prefork}"), "/s", slow, Bound::None);
        report.add(format!("redis: {native}, no sandbox, no results"), "/s", rust, Bound::None);
        report.add("redis: rwork to Celery prefork", "×", over_prefork, Bound::AtLeast(OVER_PREFORK));
        report.add("redis: rwork to the native Rust worker", "×", over_native, Bound::AtLeast(OVER_NATIVE));
        report.add("redis: rwork, CPU time of the worker for a task", "µs", cpu, Bound::AtMost(CPU_US));
        report.add("redis: round trip, rwork's client, p50", "ms", p50, Bound::AtMost(TRIP_MS));
        report.add("redis: round trip, rwork's client, p99", "ms", p99, Bound::None);
        report.add("redis: round trip, Python to rwork, p50", "ms", trips::p50(&self.python), Bound::None);
        report.add(
            "redis: round trip, Python to Celery solo, p50",
            "ms",
            trips::p50(&self.celery),
            Bound::None,
        );
        report.add("redis: round trip, rwork's to Celery's, p50", "×", trip, Bound::AtMost(1.0));
        report.add_before("redis", [&self.ours, &self.before], [&self.own, &self.own_before]);
    }
}

/// A message with holes: its parts, and what goes between them.
#[derive(Debug)]
struct Template {
    text: String,
    id: String,
    tag: String,
}

impl Template {
    fn of(message: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(message).context("what Celery sent is no JSON")?;
        let at = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let id = at("/headers/id").context("what Celery sent has no id")?;
        let tag = at("/properties/delivery_tag").context("what Celery sent has no delivery tag")?;
        Ok(Self { text: message.to_owned(), id, tag })
    }

    /// One uuid serves as both: it need only be different in each message.
    fn fill(&self, id: &str) -> String {
        self.text.replace(&self.id, id).replace(&self.tag, id)
    }
}
