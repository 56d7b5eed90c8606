//! The workers that are measured: how each is started, and what of it is seen at the server.

use std::path::Path;
use std::process::{Command, Stdio};

use rwork_tests::binary::rwork as binary;
use rwork_tests::child;
use rwork_tests::guests::{guest, target_directory};
use rwork_tests::python::Version;

/// Where the sources of the peers are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// A worker of the queue `celery`.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// For people.
    pub(crate) name: String,
    /// The hash in which messages are that it has taken and not finished.
    pub(crate) held: &'static str,
    /// Whether it stores results, which are then looked at.
    pub(crate) stores: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Rwork,
    Celery { pool: Vec<String>, acks_late: bool },
    Native,
}

/// rwork as it comes: as many slots as cores, results stored, acknowledged after.
pub(crate) fn rwork() -> Peer {
    Peer { name: "rwork".into(), held: "unacked", stores: true, kind: Kind::Rwork }
}

/// Celery's default pool with so many processes.
pub(crate) fn prefork(processes: usize, acks_late: bool) -> Peer {
    let pool = ["-P", "prefork", "-c", &processes.to_string()].map(str::to_owned).to_vec();
    let acked = if acks_late { "acked after" } else { "acked before" };
    let name = format!("Celery prefork, -c {processes}, stored, {acked}");
    Peer { name, held: "unacked", stores: true, kind: Kind::Celery { pool, acks_late } }
}

/// Celery in one process: its quickest answer.
pub(crate) fn solo() -> Peer {
    let kind = Kind::Celery { pool: vec!["-P".to_owned(), "solo".to_owned()], acks_late: true };
    Peer { name: "Celery solo".into(), held: "unacked", stores: true, kind }
}

/// The crate `celery` 0.5: a native function call for a task, no results, acknowledged before it runs.
pub(crate) fn native() -> anyhow::Result<Peer> {
    anyhow::ensure!(
        native_binary().is_file(),
        "{} is missing; `make bench` builds it",
        native_binary().display()
    );
    let held = "_celery.celery_process_map";
    Ok(Peer { name: "native Rust".into(), held, stores: false, kind: Kind::Native })
}

impl Peer {
    /// The command that serves the queue at this URL. It ends with this process at the latest.
    pub(crate) fn command(&self, url: &str, directory: &Path) -> anyhow::Result<Command> {
        let mut command = match &self.kind {
            Kind::Rwork => {
                let plugins = directory.join("plugins");
                std::fs::create_dir_all(&plugins)?;
                std::fs::copy(guest("noop"), plugins.join("noop.wasm"))?;
                let mut command = child::mortal(binary());
                command.args(["run", "--quiet", "--broker", url, "--backend", url, "--plugins"]).arg(plugins);
                command.env("RWORK_PLUGINS_CACHE_DIR", directory.join("cache"));
                command
            }
            Kind::Celery { pool, acks_late } => {
                let mut command = child::mortal(Version::Current.interpreter());
                command.args(["-m", "celery", "-A", "noop", "worker", "-l", "ERROR"]).args(pool);
                // It has nobody to talk to.
                command.args(["--without-gossip", "--without-mingle", "--without-heartbeat"]);
                python(&mut command, url);
                command.env("PEER_ACKS_LATE", if *acks_late { "1" } else { "0" });
                command
            }
            Kind::Native => {
                let mut command = child::mortal(native_binary());
                // A prefetch of 0 is unlimited. 10, its default, 100 and 1000 are as fast, within 2 %.
                command.args([url, "celery", "0"]);
                command
            }
        };
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }
}

/// The peer's client: `python noop.py …`.
pub(crate) fn client(url: &str) -> Command {
    let mut command = child::mortal(Version::Current.interpreter());
    command.arg(Path::new(SOURCES).join("celery-py/noop.py"));
    python(&mut command, url);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn python(command: &mut Command, url: &str) {
    command.env("PEER_URL", url).env("PYTHONPATH", Path::new(SOURCES).join("celery-py"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
}

fn native_binary() -> std::path::PathBuf {
    target_directory().join("peers/release/celery-rs-peer")
}
