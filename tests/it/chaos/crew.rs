//! Workers of rwork's and of Celery's on one queue of one broker, each killed and started again, or stopped for a while, as
//! told.
//!
//! Owns the site and the processes. It does not know what broker that is, nor when or why somebody is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustix::process::{Signal, kill_process};
use rwork_protocol::Timestamp;
use rwork_tests::binary::before;
use rwork_tests::celery::{Pool, PythonWorker};
use rwork_tests::history::{Kill, Stop};
use rwork_tests::journal::Journal;
use rwork_tests::process::{Site, WorkerProcess};
use rwork_tests::python::Version;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

/// Where they all work.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) site: Site,
    pub(super) journal: Journal,
    broker: String,
    backend: String,
    celerys: Value,
}

impl Ground {
    /// A site that is configured with these settings and tables of rwork's, and these settings of Celery's.
    pub(super) fn new(
        journal: &Journal,
        broker: String,
        backend: String,
        ours: &str,
        celerys: Value,
    ) -> anyhow::Result<Self> {
        let site = Site::new()?;
        site.configure(ours)?;
        Ok(Self { site, broker, backend, celerys, journal: journal.clone() })
    }

    async fn start(&self, kind: Kind, node: &str) -> anyhow::Result<Worker> {
        match kind {
            Kind::Rwork => {
                let arguments = ["--broker", &self.broker, "--backend", &self.backend];
                Ok(Worker::Rwork(WorkerProcess::start(&self.site, node, &arguments, &self.journal).await?))
            }
            Kind::Before => {
                let binary = before().context("there is no binary of the edition before")?;
                let arguments = ["--broker", &self.broker, "--backend", &self.backend];
                let directory = self.site.path();
                let started =
                    WorkerProcess::start_binary(&binary, directory, node, &arguments, &self.journal);
                Ok(Worker::Rwork(started.await?))
            }
            Kind::Celery => {
                let mut settings = json!({
                    "broker_url": self.broker,
                    "result_backend": self.backend,
                    "worker_prefetch_multiplier": 1,
                });
                if let (Some(all), Some(more)) = (settings.as_object_mut(), self.celerys.as_object()) {
                    all.extend(more.clone());
                }
                Ok(Worker::Celery(self.start_celerys(node, &settings).await?))
            }
        }
    }

    /// Celery's worker ends when something befalls the server while it starts, and is started again then.
    async fn start_celerys(&self, node: &str, settings: &Value) -> anyhow::Result<PythonWorker> {
        const STARTS: usize = 20;
        let folder = self.site.history();
        let start = || PythonWorker::start(Version::Current, node, Pool::Solo, settings, &folder, &[]);
        for _ in 1..STARTS {
            if let Ok(worker) = start().await {
                return Ok(worker);
            }
        }
        start().await
    }
}

/// Owner of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rwork,
    /// rwork's edition before, which loses what it holds in an outage as Celery's does.
    Before,
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
            // How Celery's takes the end of a server is not the matter here.
            Self::Celery(worker) => return worker.terminate().await.map(drop),
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

/// All of them.
#[derive(Debug)]
pub(super) struct Crew {
    ground: Arc<Ground>,
    places: Vec<Place>,
    started: usize,
    /// Who was killed, when.
    pub(super) kills: Vec<Kill>,
    /// Who stood still, and when.
    pub(super) stops: Vec<Stop>,
    /// Those that are to go on.
    going_on: JoinSet<()>,
    /// All incarnations of Celery's, and of the edition before.
    pub(super) celery: BTreeSet<String>,
}

impl Crew {
    /// Starts two of rwork's and one of Celery's, and waits until all three consume.
    pub(super) async fn start(ground: Arc<Ground>) -> anyhow::Result<Self> {
        let before = before().map(|_| Kind::Before);
        let kinds = [Kind::Rwork, Kind::Rwork, Kind::Celery].into_iter().chain(before);
        Self::of(&kinds.collect::<Vec<_>>(), ground).await
    }

    /// Starts these and waits until all consume.
    pub(super) async fn of(kinds: &[Kind], ground: Arc<Ground>) -> anyhow::Result<Self> {
        let mut crew = Self {
            ground,
            places: Vec::new(),
            started: 0,
            kills: Vec::new(),
            stops: Vec::new(),
            going_on: JoinSet::new(),
            celery: BTreeSet::new(),
        };
        for kind in kinds.iter().copied() {
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
            Kind::Before => format!("before-{}@chaos", self.started),
            Kind::Celery => format!("celery-{}@chaos", self.started),
        };
        if kind != Kind::Rwork {
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

    /// Kills the next of those that are up, rwork's before Celery's, and has it started again. Nobody is up: nobody is killed.
    pub(super) async fn kill_one(&mut self) -> anyhow::Result<()> {
        let (turn, all) = (self.kills.len(), self.places.len());
        let next =
            (0..all).map(|nth| (turn + nth) % all).find(|index| self.places[*index].starting.is_finished());
        let Some(index) = next else { return Ok(()) };
        let kind = self.places[index].kind;
        let worker = (&mut self.places[index].starting).await??;
        let node = worker.node().to_owned();
        let at = worker.kill_9().await.with_context(|| format!("the worker `{node}` had left by itself"))?;
        self.kills.push(Kill { node, at });
        self.places[index].starting = self.next(kind);
        Ok(())
    }

    /// Stops one of rwork's that are up for so long, with SIGSTOP. Returns at once.
    pub(super) async fn stop_one(&mut self, rng: &mut fastrand::Rng, time: Duration) -> anyhow::Result<()> {
        let is_ours = |place: &Place| place.kind == Kind::Rwork && place.starting.is_finished();
        let up: Vec<usize> = (0..self.places.len()).filter(|index| is_ours(&self.places[*index])).collect();
        let Some(place) = rng.choice(up).map(|index| &mut self.places[index]) else { return Ok(()) };
        let worker = (&mut place.starting).await??;
        if let Worker::Rwork(rwork) = &worker {
            let (pid, from) = (rwork.pid()?, Timestamp::from_system(SystemTime::now()));
            kill_process(pid, Signal::STOP)?;
            self.stops.push(Stop { node: rwork.node().to_owned(), from, to: from.plus(time) });
            self.going_on.spawn(async move {
                tokio::time::sleep(time).await;
                // It may have been killed meanwhile.
                let _ = kill_process(pid, Signal::CONT);
            });
        }
        place.starting = tokio::spawn(async move { Ok(worker) });
        Ok(())
    }

    /// Waits until nobody stands still.
    pub(super) async fn all_go_on(&mut self) {
        while self.going_on.join_next().await.is_some() {}
    }

    /// Ends them as a person would.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        self.all_go_on().await;
        for place in self.places.drain(..) {
            place.starting.await??.terminate().await?;
        }
        Ok(())
    }
}
