//! The model world in calm, for tests of single steps and of one worker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rwork_broker::{Consume, Delivery, Publish, Receipt, Route};
use rwork_model::How;
use rwork_protocol::{Embed, Message, NewTask, Record, TaskId, Timestamp, decode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::backend::ModelBackend;
use super::broker::ModelBroker;
use super::executor::{ModelExecutor, ModelTask};
use super::ledger::Run;
use super::tasks;
use super::world::{WorkerClock, World};
use crate::budget::Budget;
use crate::commit::{Held, TaskCommit};
use crate::intake::{Arrived, Source};
use crate::live::Live;
use crate::parts::Parts;
use crate::request::Request;
use crate::session::Session;
use crate::shared::Shared;
use crate::watched::Watched;
use crate::{Shutdown, Summary, Worker, WorkerConfig, WorkerParts};

/// One worker's surroundings, with nothing running.
pub(crate) struct Bench {
    world: World,
    pub(crate) parts: Arc<Parts<ModelExecutor>>,
    pub(crate) source: Source,
    /// Commits that were sent to the committer.
    pub(crate) inbox: mpsc::Receiver<TaskCommit>,
    _commits: mpsc::Sender<TaskCommit>,
}

pub(crate) type ModelRequest = Request<ModelExecutor>;

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let world = World::calm();
        let (commits, inbox) = mpsc::channel(16);
        let WorkerParts { broker, backend, executor, clock, rng, renewals, config } =
            parts(&world, 4, change);
        let options = Consume { queues: config.queues.clone(), name: config.node.clone(), unsettled_max: 16 };
        let consumer = broker.consume(options).await.unwrap();
        let (asked, ownership) = (clock.boot(), broker.capabilities().ownership);
        let session = Arc::new(Session::new(consumer, Arc::clone(&clock), ownership, asked));
        let shared = Arc::new(Shared {
            budget: Arc::new(Budget::new(config.bytes_max)),
            broker,
            backend,
            clock,
            rng: Mutex::new(rng),
            summary: Mutex::default(),
            renewals,
            postponed: Watched::new(0),
            live: ArcSwap::from_pointee(Live::from(&config)),
            config,
            mistake: None,
        });
        let parts = Arc::new(Parts { shared, executor });
        let source = Source { session, commits: commits.downgrade() };
        Self { world, parts, source, inbox, _commits: commits }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// A message as if it had just been delivered.
    pub(crate) fn delivery(&self, message: Message) -> Delivery {
        let receipt = Receipt(1);
        Delivery { message, queue: tasks::queue(), redelivered: false, delivery_count: 1, receipt }
    }

    pub(crate) fn held(&self, message: Message) -> Held {
        Held { session: Arc::clone(&self.source.session), delivery: self.delivery(message) }
    }

    pub(crate) fn arrived(&self, delivery: Delivery) -> Arrived {
        let message = decode(&delivery.message, &self.parts.shared.config.decode_limits);
        Arrived { delivery, message, body: self.parts.shared.budget.bodies.take(0), success: None }
    }

    /// A request for a task of the model world.
    pub(crate) fn request(&self, task: &str, change: impl FnOnce(&mut NewTask)) -> (Arc<ModelRequest>, Held) {
        let message = message(task, self.now(), change);
        let held = self.held(message.clone());
        let decoded = decode(&message, &self.parts.shared.config.decode_limits).unwrap();
        let version: ModelTask = crate::Executor::lookup(&self.parts.executor, task).unwrap();
        let body = self.parts.shared.budget.bodies.take(0);
        let commits = &self.source.commits;
        let request = Request::new(Arc::clone(&self.parts), decoded, body, version, &held, commits);
        (Arc::new(request), held)
    }
}

/// The message of a task of the model world, its id the task's name.
pub(crate) fn message(task: &str, now: Timestamp, change: impl FnOnce(&mut NewTask)) -> Message {
    let mut new = NewTask { id: Some(tasks::task_id(task)), ..NewTask::new(tasks::name(task)) };
    change(&mut new);
    new.build(now).unwrap().encode()
}

fn parts(world: &World, slots: usize, change: impl FnOnce(&mut WorkerConfig)) -> WorkerParts<ModelExecutor> {
    let mut config = WorkerConfig {
        concurrency: 1,
        max_in_flight: slots,
        ..WorkerConfig::new("worker1@model", vec![tasks::queue()], tasks::queue())
    };
    change(&mut config);
    WorkerParts {
        broker: Arc::new(ModelBroker { world: world.clone(), worker: 1 }),
        backend: Arc::new(ModelBackend { world: world.clone(), worker: 1 }),
        executor: ModelExecutor::new(world.clone(), 1, config.max_in_flight),
        clock: Arc::new(WorkerClock { world: world.clone(), worker: 1 }),
        rng: fastrand::Rng::with_seed(1),
        renewals: None,
        config,
    }
}

/// Why a worker does not even begin where the broker refuses it.
pub(crate) async fn refused() -> crate::Error {
    let world = World::calm();
    world.break_off(true);
    Worker::new(parts(&world, 1, |_| {})).unwrap().run(Shutdown::new()).await.unwrap_err()
}

/// A whole worker in a calm world.
pub(crate) struct Calm {
    world: World,
    pub(crate) shutdown: Shutdown,
    /// What it holds in memory.
    pub(crate) budget: Arc<Budget>,
    worker: JoinSet<Summary>,
    _time: JoinSet<()>,
}

impl Calm {
    pub(crate) fn start(slots: usize, change: impl FnOnce(&mut WorkerConfig)) -> Self {
        let world = World::calm();
        let mut time = JoinSet::new();
        time.spawn(world.clone().pass_time());
        let model = Worker::new(parts(&world, slots, change)).unwrap();
        let (shutdown, budget) = (Shutdown::new(), Arc::clone(&model.budget));
        let mut worker = JoinSet::new();
        let run = model.run(shutdown.clone());
        worker.spawn(async move { run.await.unwrap() });
        Self { world, shutdown, budget, worker, _time: time }
    }

    /// Sends a task under this id.
    pub(crate) fn send(&self, task: &str, id: &str) -> u64 {
        let message = message(task, self.world.now(), |new| new.id = Some(tasks::task_id(id)));
        self.world.accept(Publish { route: Route::queue(&tasks::queue()), message, not_before: None })
    }

    /// Sends a task that two others follow.
    pub(crate) fn send_chain(&self, id: &str) -> u64 {
        let embed = Embed { chain: Some(tasks::rest_of_chain(id)), ..Embed::default() };
        let message = message("ok", self.world.now(), |new| {
            new.id = Some(tasks::task_id(id));
            new.embed = embed;
        });
        self.world.accept(Publish { route: Route::queue(&tasks::queue()), message, not_before: None })
    }

    /// Waits until something is so; the paused clock leaps there.
    pub(crate) async fn until(&self, what: impl Fn(&Self) -> bool) {
        tokio::time::timeout(Duration::from_secs(600), async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }

    pub(crate) fn record(&self, id: &str) -> Option<Record> {
        self.world.lock().store.record(&tasks::task_id(id)).cloned()
    }

    /// Messages that run now, and messages that are held and do not.
    pub(crate) fn running_and_unstarted(&self) -> (usize, usize) {
        let state = self.world.lock();
        let handed = state.ledger.accounts.values().flat_map(|account| &account.deliveries);
        let held: Vec<_> = handed.filter(|handed| handed.end.is_none()).collect();
        let running = held.iter().filter(|handed| handed.run == Run::Started).count();
        (running, held.len() - running)
    }

    /// How a message's only delivery ended.
    pub(crate) fn ended(&self, serial: u64) -> Option<&'static str> {
        let state = self.world.lock();
        match state.ledger.accounts.get(&serial)?.deliveries.first()?.end.as_ref()? {
            How::Acked => Some("acked"),
            How::Requeued => Some("requeued"),
            How::Released => Some("released"),
            How::Interrupted => Some("interrupted"),
            How::Dead(_) => Some("dead"),
            _ => Some("lost"),
        }
    }

    /// Lets the store have no room, or room again.
    pub(crate) fn fill_store(&self, is_full: bool) {
        self.world.lock().store.is_full = is_full;
    }

    /// Runs that have ended.
    pub(crate) fn ran(&self) -> usize {
        let state = self.world.lock();
        let handed = state.ledger.accounts.values().flat_map(|account| &account.deliveries);
        handed.filter(|handed| matches!(handed.run, Run::Ended(_))).count()
    }

    pub(crate) async fn stopped(mut self) -> Summary {
        self.worker.join_next().await.unwrap().unwrap()
    }

    /// Breaks the connection to the broker, which then takes new ones, or refuses them.
    pub(crate) fn break_off(&self, refuses: bool) {
        self.world.break_off(refuses);
    }

    /// Takes the backend away for so long.
    pub(crate) fn take_backend_away(&self, length: Duration) {
        self.world.lock().server.backend_down_until = Some(tokio::time::Instant::now() + length);
    }
}

pub(crate) fn id(id: &str) -> TaskId {
    tasks::task_id(id)
}
