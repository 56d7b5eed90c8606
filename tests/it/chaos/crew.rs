//! Two rwork workers and one of Celery's on one queue of one Redis, each killed and started again as told.
//!
//! Owns the site, the server and the processes. It does not know when or why somebody is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use rwork_protocol::Timestamp;
use rwork_redis::{Options, Redis, Role};
use rwork_tests::celery::{Pool, PythonWorker};
use rwork_tests::history::Kill;
use rwork_tests::journal::Journal;
use rwork_tests::process::{Site, WorkerProcess};
use rwork_tests::python::Version;
use rwork_tests::redis::{self, RedisServer};
use serde_json::json;
use tokio::task::JoinHandle;

/// What Celery's worker held when it was killed comes back after so many seconds, by whoever looks first.
const VISIBILITY_TIMEOUT: u32 = 6;
/// And is looked for so often, in seconds; kombu's default is 100.
const RESTORE_INTERVAL: u32 = 1;
/// A worker that is killed while it restores keeps all others from it for so many seconds; kombu's default is 300.
const MUTEX_EXPIRE: u32 = 3;

/// Where they all work.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) site: Site,
    pub(super) server: RedisServer,
    pub(super) journal: Journal,
}

impl Ground {
    /// A server that loses nothing it has answered, and keeps account of every write.
    pub(super) fn new(journal: &Journal) -> anyhow::Result<Self> {
        let more = ["--auto-aof-rewrite-percentage", "0"].map(str::to_owned).to_vec();
        let server =
            RedisServer::start(redis::Options { append_only: true, more, ..redis::Options::default() })?;
        let site = Site::new()?;
        site.configure(&format!(
            "[broker_transport_options]\nvisibility_timeout = {VISIBILITY_TIMEOUT}\n\
             unacked_restore_interval = {RESTORE_INTERVAL}\nunacked_restore_throttle = 1\n\
             unacked_mutex_expire = {MUTEX_EXPIRE}"
        ))?;
        Ok(Self { site, server, journal: journal.clone() })
    }

    /// This process's own connections: broker and backend.
    pub(super) async fn open(&self) -> anyhow::Result<(Redis, Redis)> {
        let url = self.server.url(0);
        let broker = Redis::connect(Options::parse(&url, Role::Broker)?).await?;
        Ok((broker, Redis::connect(Options::parse(&url, Role::Backend)?).await?))
    }

    async fn start(&self, kind: Kind, node: &str) -> anyhow::Result<Worker> {
        let url = self.server.url(0);
        match kind {
            Kind::Rwork => {
                let arguments = ["--broker", &url, "--backend", &url];
                Ok(Worker::Rwork(WorkerProcess::start(&self.site, node, &arguments, &self.journal).await?))
            }
            Kind::Celery => {
                let settings = json!({
                    "broker_url": url,
                    "result_backend": url,
                    "worker_prefetch_multiplier": 1,
                    "broker_transport_options": {
                        "visibility_timeout": VISIBILITY_TIMEOUT,
                        "unacked_restore_interval": RESTORE_INTERVAL,
                        "unacked_restore_throttle": 1,
                        "unacked_mutex_expire": MUTEX_EXPIRE,
                    },
                });
                let folder = self.site.history();
                let started =
                    PythonWorker::start(Version::Current, node, Pool::Solo, &settings, &folder, &[]);
                Ok(Worker::Celery(started.await?))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rwork,
    Celery,
}

#[derive(Debug)]
enum Worker {
    Rwork(WorkerProcess),
    Celery(PythonWorker),
}

impl Worker {
    fn node(&self) -> &str {
        match self {
            Self::Rwork(worker) => worker.node(),
            Self::Celery(worker) => worker.node(),
        }
    }

    async fn kill_9(self) -> anyhow::Result<Timestamp> {
        match self {
            Self::Rwork(worker) => worker.kill_9().await,
            Self::Celery(worker) => {
                let at = Timestamp::from_system(SystemTime::now());
                worker.kill_9()?;
                Ok(at)
            }
        }
    }

    async fn terminate(self) -> anyhow::Result<()> {
        let node = self.node().to_owned();
        let status = match self {
            Self::Rwork(worker) => worker.terminate().await?,
            Self::Celery(worker) => worker.terminate().await?,
        };
        anyhow::ensure!(status.success(), "the worker `{node}` left with {status}");
        Ok(())
    }
}

/// One incarnation after the other.
#[derive(Debug)]
struct Place {
    kind: Kind,
    starting: JoinHandle<anyhow::Result<Worker>>,
}

/// The three.
#[derive(Debug)]
pub(super) struct Crew {
    ground: Arc<Ground>,
    places: Vec<Place>,
    started: usize,
    /// Who was killed, when.
    pub(super) kills: Vec<Kill>,
    /// All of Celery's incarnations.
    pub(super) celery: BTreeSet<String>,
}

impl Crew {
    /// Starts them and waits until all three consume.
    pub(super) async fn start(ground: Arc<Ground>) -> anyhow::Result<Self> {
        let (places, kills, celery) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut crew = Self { ground, places, started: 0, kills, celery };
        for kind in [Kind::Rwork, Kind::Rwork, Kind::Celery] {
            let starting = crew.next(kind);
            crew.places.push(Place { kind, starting });
        }
        crew.all_up().await?;
        Ok(crew)
    }

    /// An incarnation that comes up while others go on working. Its name is never used again, so that what it did can be
    /// told from what the others did.
    fn next(&mut self, kind: Kind) -> JoinHandle<anyhow::Result<Worker>> {
        self.started += 1;
        let node = match kind {
            Kind::Rwork => format!("rwork-{}@chaos", self.started),
            Kind::Celery => format!("celery-{}@chaos", self.started),
        };
        if kind == Kind::Celery {
            self.celery.insert(node.clone());
        }
        let ground = Arc::clone(&self.ground);
        tokio::spawn(async move { ground.start(kind, &node).await })
    }

    /// Waits until nobody is still starting.
    pub(super) async fn all_up(&mut self) -> anyhow::Result<()> {
        for place in &mut self.places {
            let worker = (&mut place.starting).await??;
            place.starting = tokio::spawn(async move { Ok(worker) });
        }
        Ok(())
    }

    /// Kills one of those that are up, and has it started again. Nobody is up: nobody is killed.
    pub(super) async fn kill_one(&mut self, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
        let up: Vec<usize> =
            (0..self.places.len()).filter(|index| self.places[*index].starting.is_finished()).collect();
        let Some(index) = rng.choice(up) else { return Ok(()) };
        let kind = self.places[index].kind;
        let worker = (&mut self.places[index].starting).await??;
        let node = worker.node().to_owned();
        let at = worker.kill_9().await.with_context(|| format!("the worker `{node}` had left by itself"))?;
        self.kills.push(Kill { node, at });
        self.places[index].starting = self.next(kind);
        Ok(())
    }

    /// Ends them as a person would.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        for place in self.places.drain(..) {
            place.starting.await??.terminate().await?;
        }
        Ok(())
    }
}
