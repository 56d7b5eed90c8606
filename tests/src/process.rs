//! Real workers: `rwork run` as processes of their own, on a site of their own, killed and ended by pid.
//!
//! Owns the site (plugins, configuration, history folder, database) and the processes. Never waits for time: what a
//! worker does is awaited in the [`Journal`] of its log.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use rwork_client::Client;
use rwork_embedded::{Embedded, Options};
use rwork_protocol::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use crate::binary::{mortal_in, rwork};
use crate::guests::guest;
use crate::journal::{Entry, Journal, Said};

/// What is logged: every task with its id, and every plugin version until it is freed.
const LEVEL: &str = "info,rwork_worker=debug,rwork_plugin=debug,lapin=off";

/// A directory in which workers run, with the `history` plugin and a folder for what it writes. Removed when dropped.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    database: PathBuf,
}

impl Site {
    /// A site with its database in its own directory.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let database = directory.path().join("rwork.db");
        Self::set_up(directory, database)
    }

    /// A site with its database elsewhere.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn with_database(database: PathBuf) -> anyhow::Result<Self> {
        Self::set_up(tempfile::tempdir()?, database)
    }

    fn set_up(directory: TempDir, database: PathBuf) -> anyhow::Result<Self> {
        let site = Self { directory, database };
        std::fs::create_dir(site.plugins())?;
        std::fs::create_dir(site.history())?;
        std::fs::copy(guest("history"), site.plugin())?;
        site.configure("")?;
        Ok(site)
    }

    /// Writes the configuration: the grants, and these settings.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn configure(&self, settings: &str) -> anyhow::Result<()> {
        let mut text = format!(
            "broker_url = \"embedded:{}\"\nplugins_cache_dir = \"cache\"\n{settings}\n",
            self.database.display()
        );
        // Under either name: one test renames the plugin.
        for plugin in ["history", "renamed"] {
            text.push_str(&format!(
                "[plugins.{plugin}.grants]\ndirs = [{{ host = \"history\", guest = \"/history\", access = \"write\" }}]\n"
            ));
        }
        std::fs::write(self.path().join("rwork.toml"), text)?;
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where workers look for plugins.
    pub fn plugins(&self) -> PathBuf {
        self.path().join("plugins")
    }

    /// The `history` plugin's file.
    pub fn plugin(&self) -> PathBuf {
        self.plugins().join("history.wasm")
    }

    /// The folder that the plugin writes to.
    pub fn history(&self) -> PathBuf {
        self.path().join("history")
    }

    /// What the plugin wrote.
    pub fn history_log(&self) -> PathBuf {
        self.history().join("log")
    }

    /// This process's own connection to the database.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(&self) -> anyhow::Result<Embedded> {
        Ok(Embedded::open(Options { path: self.database.clone(), ..Options::default() })?)
    }
}

/// A producer on a connection.
pub fn client(database: &Embedded) -> Client {
    Client::new(Arc::new(database.clone()), Arc::new(database.clone()))
}

/// A running `rwork run`. Killed when dropped.
#[derive(Debug)]
pub struct WorkerProcess {
    node: Arc<str>,
    child: Child,
    reading: JoinHandle<()>,
}

impl WorkerProcess {
    /// Starts a worker by this name and waits until it consumes. Its log goes to the journal.
    ///
    /// # Errors
    /// When it can't be started, or ends before it is ready; the end of its log is in the error.
    pub async fn start(
        site: &Site,
        node: &str,
        arguments: &[&str],
        journal: &Journal,
    ) -> anyhow::Result<Self> {
        Self::start_in(site.path(), node, arguments, journal).await
    }

    /// The same in any directory; where the broker is must be said by the configuration there or by the arguments.
    ///
    /// # Errors
    /// As [`WorkerProcess::start`].
    pub async fn start_in(
        directory: &Path,
        node: &str,
        arguments: &[&str],
        journal: &Journal,
    ) -> anyhow::Result<Self> {
        Self::start_binary(rwork(), directory, node, arguments, journal).await
    }

    /// The same of another binary.
    ///
    /// # Errors
    /// As [`WorkerProcess::start`].
    pub async fn start_binary(
        binary: &Path,
        directory: &Path,
        node: &str,
        arguments: &[&str],
        journal: &Journal,
    ) -> anyhow::Result<Self> {
        // What runs is ended by its owner. Kept in a static it has none, and ends with the process.
        let mut command = mortal_in(binary, directory);
        command.args(["run", "-n", node, "--log-format", "json", "-l", LEVEL]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut said = journal.reader_from_now();
        let mut child =
            Command::from(command).kill_on_drop(true).spawn().context("failed to start `rwork run`")?;
        let stderr = child.stderr.take().context("the worker has no stderr")?;
        let node: Arc<str> = Arc::from(node);
        let reading = tokio::spawn(read(stderr, Arc::clone(&node), journal.clone()));
        let worker = Self { node, child, reading };
        let first = said.find(|entry| {
            entry.node == worker.node && (entry.says("ready") || matches!(entry.said, Said::End))
        });
        if matches!(first.await.said, Said::End) {
            anyhow::bail!(
                "the worker `{}` ended before it was ready:\n{}",
                worker.node,
                tail(journal, &worker.node)
            );
        }
        Ok(worker)
    }

    /// Its node name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.child.id().with_context(|| format!("the worker `{}` has ended", self.node))?;
        Pid::from_raw(i32::try_from(pid)?).context("no process has the id 0")
    }

    /// Kills it as `kill -9` does, and returns when it is gone and all that it logged is in the journal. Returns the
    /// moment of the kill.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub async fn kill_9(mut self) -> anyhow::Result<Timestamp> {
        let pid = self.pid()?;
        let at = Timestamp::from_system(SystemTime::now());
        kill_process(pid, Signal::KILL)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.code().is_none(), "the worker `{}` left by itself: {status}", self.node);
        self.reading.await?;
        Ok(at)
    }

    /// Asks it to drain and leave, as the first Ctrl-C does, and waits for its end.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        kill_process(self.pid()?, Signal::TERM)?;
        let status = self.child.wait().await?;
        self.reading.await?;
        Ok(status)
    }
}

/// Puts every line into the journal as it comes, so that the worker never waits for whoever reads its log.
async fn read(stderr: ChildStderr, node: Arc<str>, journal: Journal) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let said = serde_json::from_str(&line).map_or(Said::Noise(line), Said::Event);
        journal.write(Entry { node: Arc::clone(&node), said });
    }
    journal.write(Entry { node, said: Said::End });
}

/// What one worker said last, and all of its warnings, for an error.
fn tail(journal: &Journal, node: &str) -> String {
    const LINES: usize = 20;
    let entries = journal.so_far();
    let of_it: Vec<&Entry> = entries.iter().filter(|entry| &*entry.node == node).collect();
    let last = of_it.len().saturating_sub(LINES);
    let shown = of_it.iter().enumerate().filter(|(nth, entry)| *nth >= last || entry.is_alarming());
    shown.map(|(_, entry)| entry.to_string()).collect::<Vec<_>>().join("\n")
}

/// Whether the long runs were asked for, by `RWORK_CHAOS=full`.
pub fn is_full_run() -> bool {
    std::env::var("RWORK_CHAOS").is_ok_and(|wanted| wanted == "full")
}

/// The seed of this run: `RWORK_SEED`, else a new one.
///
/// # Errors
/// When `RWORK_SEED` is no number.
pub fn seed() -> anyhow::Result<u64> {
    match std::env::var("RWORK_SEED") {
        Ok(seed) => {
            seed.parse().with_context(|| format!("expected `RWORK_SEED` to be a number, got `{seed}`"))
        }
        Err(_) => Ok(fastrand::u64(..)),
    }
}

/// Writes a line for whoever reads the run's output, past the capture of passing tests.
pub fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    // An output that can't be written to is nobody's failure.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Awaits a whole test. One that hangs fails, with the end of every worker's log, instead of stopping the run.
///
/// # Errors
/// The test's own, or that it hangs.
pub async fn unless_it_hangs(
    journal: &Journal,
    test: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    /// Many times what the longest of them takes on the slowest machine.
    const HANG: std::time::Duration = std::time::Duration::from_secs(600);
    const HANG_OF_FULL_RUN: std::time::Duration = std::time::Duration::from_secs(3600);
    let hang = if is_full_run() { HANG_OF_FULL_RUN } else { HANG };
    let said = || {
        let entries = journal.so_far();
        let nodes: std::collections::BTreeSet<_> =
            entries.iter().map(|entry| Arc::clone(&entry.node)).collect();
        nodes.iter().map(|node| tail(journal, node)).collect::<Vec<_>>().join("\n\n")
    };
    // Building them may take minutes, which are not the test's.
    rwork();
    guest("history");
    match tokio::time::timeout(hang, test).await {
        Ok(outcome) => outcome.with_context(|| format!("the workers' last words:\n{}", said())),
        Err(_) => anyhow::bail!("it hangs; the workers' last words:\n{}", said()),
    }
}
