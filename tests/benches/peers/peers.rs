//! The workers that are measured, and Celery's client: how each is started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rwork_tests::binary::{before, rwork as binary};
use rwork_tests::child;
use rwork_tests::guests::{guest, target_directory};
use rwork_tests::python::Version;

use crate::ground::{QUEUE, Urls};

/// Where the sources of the peers are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Messages in the hands of each of Celery's processes, of which none ever waits for one then.
const PREFETCH: usize = 1_000;

/// A worker of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// For people.
    pub(crate) name: String,
    /// Whether it stores results, which are then looked at.
    pub(crate) stores: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// By the path of its binary.
    Rwork(PathBuf),
    Celery {
        pool: Vec<String>,
        acks: Acks,
        prefetch: usize,
    },
    /// By the name of its binary.
    Native(&'static str),
}

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// Before the task runs.
    Before,
    /// After its result is stored.
    After,
}

/// rwork as it comes: as many slots as cores, results stored, acknowledged after.
pub(crate) fn rwork() -> Peer {
    Peer { name: "rwork".into(), stores: true, kind: Kind::Rwork(binary().to_owned()) }
}

/// The edition before, where `RWORK_BEFORE` names its binary.
pub(crate) fn rwork_before() -> Option<Peer> {
    before().map(|path| Peer { name: "rwork, the edition before".into(), kind: Kind::Rwork(path), ..rwork() })
}

/// Celery's default pool with so many processes.
pub(crate) fn prefork(processes: usize, acks: Acks) -> Peer {
    let acked = if acks == Acks::After { "after" } else { "before" };
    let name = format!("Celery prefork, -c {processes}, stored, acked {acked}");
    let processes = processes.to_string();
    celery(name, &["-P", "prefork", "-c", &processes], acks)
}

/// The same without results.
pub(crate) fn rwork_without_results() -> Peer {
    Peer { name: "rwork, no results".into(), stores: false, ..rwork() }
}

/// Celery's pool of so many threads.
pub(crate) fn threads(count: usize) -> Peer {
    let name = format!("Celery threads, -c {count}, stored, acked after");
    celery(name, &["-P", "threads", "-c", &count.to_string()], Acks::After)
}

/// Celery's pool of so many green threads.
pub(crate) fn gevent(count: usize) -> Peer {
    let name = format!("Celery gevent, -c {count}, stored, acked after");
    let mut peer = celery(name, &["-P", "gevent", "-c", &count.to_string()], Acks::After);
    if let Kind::Celery { prefetch, .. } = &mut peer.kind {
        *prefetch = PREFETCH / count;
    }
    peer
}

/// Celery in one process: its quickest answer.
pub(crate) fn solo() -> Peer {
    celery("Celery solo, stored, acked after".to_owned(), &["-P", "solo"], Acks::After)
}

fn celery(name: String, pool: &[&str], acks: Acks) -> Peer {
    let pool = pool.iter().map(|word| (*word).to_owned()).collect();
    Peer { name, stores: true, kind: Kind::Celery { pool, acks, prefetch: PREFETCH } }
}

/// The crate `celery` 0.5 and its maintained fork: a native function call for a task, no results, acknowledged before it
/// runs.
pub(crate) fn native() -> anyhow::Result<[Peer; 2]> {
    let peer = |name: &str, binary| {
        let path = native_binary(binary);
        anyhow::ensure!(path.is_file(), "{} is missing; `make bench` builds it", path.display());
        Ok(Peer { name: format!("native Rust {name}"), stores: false, kind: Kind::Native(binary) })
    };
    Ok([peer("`celery` 0.5", "celery-rs-peer")?, peer("`celery-rs` 0.6", "celery-rs-fork-peer")?])
}

impl Peer {
    /// Whether it is the native Rust worker.
    pub(crate) fn is_native(&self) -> bool {
        matches!(self.kind, Kind::Native(_))
    }

    /// The command that serves the queue there. It ends with this process at the latest.
    pub(crate) fn command(&self, urls: &Urls, directory: &Path) -> anyhow::Result<Command> {
        let mut command = match &self.kind {
            Kind::Rwork(binary) => {
                let plugins = directory.join("plugins");
                std::fs::create_dir_all(&plugins)?;
                std::fs::copy(guest("noop"), plugins.join("noop.wasm"))?;
                let mut command = child::mortal(binary);
                command.args(["run", "--quiet", "--broker", &urls.broker, "--backend", &urls.backend]);
                command.arg("--plugins").arg(plugins);
                command.env("RWORK_PLUGINS_CACHE_DIR", directory.join("cache"));
                command.env("RWORK_TASK_IGNORE_RESULT", if self.stores { "false" } else { "true" });
                command
            }
            Kind::Celery { pool, acks, prefetch } => {
                let mut command = child::mortal(Version::Current.interpreter());
                command.args(["-m", "celery", "-A", "noop", "worker", "-l", "ERROR"]).args(pool);
                // It has nobody to talk to.
                command.args(["--without-gossip", "--without-mingle", "--without-heartbeat"]);
                python(&mut command, urls);
                command.env("PEER_ACKS_LATE", if *acks == Acks::After { "1" } else { "0" });
                command.env("PEER_PREFETCH_MULTIPLIER", prefetch.to_string());
                command
            }
            Kind::Native(binary) => {
                let mut command = child::mortal(native_binary(binary));
                // A prefetch of 0 is unlimited. 10, its default, 100 and 1000 are as fast on Redis, within 2 %.
                command.args([&urls.broker, QUEUE, "0"]);
                command
            }
        };
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }
}

/// The peer's client: `python noop.py …`.
pub(crate) fn client(urls: &Urls) -> Command {
    let mut command = child::mortal(Version::Current.interpreter());
    command.arg(Path::new(SOURCES).join("celery-py/noop.py"));
    python(&mut command, urls);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Has Celery's client put one message into the queue: all messages are copies of it.
pub(crate) fn send(urls: &Urls) -> anyhow::Result<()> {
    let sent = client(urls).arg("send").status()?;
    anyhow::ensure!(sent.success(), "Celery's client failed: {sent}");
    Ok(())
}

fn python(command: &mut Command, urls: &Urls) {
    command.env("PEER_BROKER", &urls.broker).env("PEER_BACKEND", &urls.backend);
    command.env("PYTHONPATH", Path::new(SOURCES).join("celery-py")).env("PYTHONDONTWRITEBYTECODE", "1");
}

fn native_binary(name: &str) -> PathBuf {
    target_directory().join("peers/release").join(name)
}
