//! The ground on RabbitMQ: a durable classic queue of persistent messages, results in Redis or sent by rpc.
//!
//! A worker is stopped (SIGSTOP) while its queue is filled, so that it meets all of it at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use rustix::process::Signal;
use rwork_amqp::{Amqp, Options, Role};
use rwork_backend::ResultBackend;
use rwork_broker::{Batch, Broker, Commit, Consume, Disposition, Ending, Publish, Room, Route};
use rwork_client::Client;
use rwork_protocol::{Message, QueueName, TaskId};
use rwork_redis::Redis;
use rwork_tests::child;
use rwork_tests::rabbitmq::RabbitServer;
use tempfile::TempDir;

use crate::drain::{cpu, drain, rates};
use crate::ground::{Ground, Left, QUEUE, Serving, Urls};
use crate::peers::{self, Acks, Peer};
use crate::report::{Bound, Report, ratio};
use crate::results::Results;
use crate::{options, say, trials, trips};

/// Tasks per second, results stored, acknowledged after: so many times the best that Celery does with results.
const OVER_CELERY: f64 = 5.0;
/// Without results beside the native Rust worker, which has neither sandbox nor results.
const OVER_NATIVE: f64 = 0.8;
/// Send, run, answer and wake the client, in milliseconds, half of all.
const TRIP_MS: f64 = 0.7;

/// Of Celery's gevent pool: as many as its users commonly take.
const GREEN_THREADS: usize = 100;

/// Messages of one publish.
const BATCH: usize = 1_000;

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Redis,
    Rpc,
}

/// The servers and a directory to run in.
#[derive(Debug)]
pub(crate) struct OnRabbit {
    server: RabbitServer,
    vhost: String,
    results: Results,
    directory: TempDir,
    /// Publishes what everybody is measured by.
    producer: Amqp,
    /// What Celery's client sent.
    template: Template,
    answers: Answers,
}

impl OnRabbit {
    async fn open() -> anyhow::Result<Self> {
        let (server, results) = (RabbitServer::start()?, Results::open().await?);
        let vhost = server.fresh_vhost().await?;
        let producer = Amqp::connect(Options::parse(&server.url(&vhost), Role::Broker)?).await?;
        peers::send(&Urls { broker: server.url(&vhost), backend: results.url() })?;
        let template = Template::of(taken(&producer).await?)?;
        let (directory, answers) = (tempfile::tempdir()?, Answers::Redis);
        Ok(Self { server, vhost, results, directory, producer, template, answers })
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let broker = Arc::new(self.producer.clone());
        let backend: Arc<dyn ResultBackend> = match self.answers {
            Answers::Redis => {
                let options = rwork_redis::Options::parse(&self.results.url(), rwork_redis::Role::Backend)?;
                Arc::new(Redis::connect(options).await?)
            }
            Answers::Rpc => {
                let url = self.server.url(&self.vhost);
                Arc::new(Amqp::connect(Options::parse(&url, Role::Backend)?).await?)
            }
        };
        Ok(Client::new(broker, backend))
    }
}

/// Takes the one message that is there.
async fn taken(broker: &Amqp) -> anyhow::Result<Message> {
    let queues = vec![QueueName::new(QUEUE)?];
    let consume = Consume { queues, name: "bench@host".to_owned(), unsettled_max: 1 };
    let consumer = broker.consume(consume).await?;
    let delivery = consumer
        .receive(Room { messages: 1, bytes: usize::MAX })
        .await?
        .pop()
        .context("Celery's client sent nothing")?;
    let message = delivery.message.clone();
    let ending = Ending::Settle(delivery.settle(Disposition::Ack));
    let commits = vec![Commit { records: Vec::new(), publish: Vec::new(), ending }];
    consumer.commit(&Batch { number: 1, commits }).await?;
    consumer.close(&[]).await?;
    Ok(message)
}

impl Ground for OnRabbit {
    fn urls(&self) -> Urls {
        let backend = match self.answers {
            Answers::Redis => self.results.url(),
            Answers::Rpc => "rpc://".to_owned(),
        };
        Urls { broker: self.server.url(&self.vhost), backend }
    }

    async fn start(&self, peer: &Peer) -> anyhow::Result<Serving> {
        self.results.clear().await?;
        self.producer.purge(&QueueName::new(QUEUE)?).await?;
        Ok(Serving::new(child::spawn(peer.command(&self.urls(), self.directory.path())?)?))
    }

    async fn fill(&self, serving: &Serving, tasks: usize) -> anyhow::Result<Vec<TaskId>> {
        let ids: Vec<TaskId> = (0..tasks).map(|_| TaskId::generate()).collect();
        let route = Route::queue(&QueueName::new(QUEUE)?);
        serving.signal(Signal::STOP)?;
        for part in ids.chunks(BATCH) {
            let message = |id: &TaskId| Publish {
                route: route.clone(),
                message: self.template.fill(id),
                not_before: None,
            };
            self.producer.publish_all(part.iter().map(message).collect()).await?;
        }
        serving.signal(Signal::CONT)?;
        Ok(ids)
    }

    /// The server is asked for all of its queues.
    fn pause(&self) -> Duration {
        Duration::from_millis(20)
    }

    async fn left(&self, _: &Peer) -> anyhow::Result<Left> {
        let queue = self.server.queue(&self.vhost, QUEUE).await?.context("the queue is gone")?;
        Ok(Left { queued: queue.ready as usize, held: queue.unsettled as usize })
    }

    async fn verify(&self, ids: &[TaskId]) -> anyhow::Result<()> {
        self.results.verify(ids).await
    }
}

/// Measures, and adds the figures.
pub(crate) async fn measure(options: &options::Options, report: &mut Report) -> anyhow::Result<()> {
    let mut ground = OnRabbit::open().await?;
    let cores = std::thread::available_parallelism()?.get();
    let candidates = [
        peers::prefork(cores, Acks::After),
        peers::prefork(2 * cores, Acks::After),
        peers::prefork(2 * cores, Acks::Before),
        peers::threads(2 * cores),
        peers::gevent(GREEN_THREADS),
        peers::solo(),
    ];
    let best = trials::best(&ground, candidates, options).await?;
    let native_peer = trials::best(&ground, peers::native()?, options).await?.peer;
    let (ours, silent) = (peers::rwork(), peers::rwork_without_results());
    let before = peers::rwork_before();
    let mut drains = [const { Vec::new() }; 5];
    let mut own = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        say(format_args!("measuring: rabbitmq, round {round} of {}: draining …", options.rounds));
        let mut work = vec![
            (&ours, options.tasks),
            (&best.peer, best.tasks),
            (&silent, options.tasks),
            (&native_peer, options.tasks),
        ];
        work.extend(before.as_ref().map(|before| (before, options.tasks)));
        ground.answers = Answers::Redis;
        for ((peer, tasks), drains) in work.into_iter().zip(&mut drains) {
            drains.push(drain(&ground, peer, tasks).await?);
        }
        say(format_args!("measuring: rabbitmq, round {round} of {}: round trips …", options.rounds));
        ground.answers = Answers::Rpc;
        for (peer, trips) in [&ours].into_iter().chain(&before).zip(&mut own) {
            trips.push(trips::by_rwork(&ground, peer, &ground.client().await?, options.trips).await?);
        }
    }
    let [stored, celery, silent, native, _] = drains.each_ref().map(|drains| rates(drains));
    let (over_celery, over_native) = (ratio(&stored, &celery), ratio(&silent, &native));
    let (p50, p99) = (trips::p50(&own[0]), trips::p99(&own[0]));
    report.add("rabbitmq: rwork, fresh sandboxes, stored in Redis, acked after", "/s", stored, Bound::None);
    report.add(format!("rabbitmq: {}", best.peer.name), "/s", celery, Bound::None);
    report.add("rabbitmq: rwork to Celery's best", "×", over_celery, Bound::AtLeast(OVER_CELERY));
    report.add("rabbitmq: rwork, fresh sandboxes, no results", "/s", silent, Bound::None);
    report.add(format!("rabbitmq: {}, no sandbox, no results", native_peer.name), "/s", native, Bound::None);
    report.add("rabbitmq: rwork to the native Rust worker", "×", over_native, Bound::AtLeast(OVER_NATIVE));
    report.add("rabbitmq: rwork, CPU time of the worker for a task", "µs", cpu(&drains[0]), Bound::None);
    report.add("rabbitmq: round trip by rpc, rwork's client, p50", "ms", p50, Bound::AtMost(TRIP_MS));
    report.add("rabbitmq: round trip by rpc, rwork's client, p99", "ms", p99, Bound::None);
    report.add_before("rabbitmq", [&drains[0], &drains[4]], own.each_ref());
    Ok(())
}

/// A message with a hole where the id goes.
#[derive(Debug)]
struct Template {
    message: Message,
    headers: String,
    id: String,
}

impl Template {
    fn of(message: Message) -> anyhow::Result<Self> {
        let headers = std::str::from_utf8(&message.headers)?.to_owned();
        let id = message.properties.correlation_id.clone().context("what Celery sent has no id")?;
        Ok(Self { message, headers, id })
    }

    fn fill(&self, id: &TaskId) -> Message {
        let mut message = self.message.clone();
        message.headers = Bytes::from(self.headers.replace(&self.id, id.as_str()));
        message.properties.correlation_id = Some(id.as_str().to_owned());
        message
    }
}
