//! Real Redis servers for the tests, on free loopback ports, each in a directory of its own.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use rwork_tests::redis::{Options, RedisServer, Sentinel};
//!
//! // The plain one that all tests of a binary share; a database number of one's own keeps them apart.
//! let server = RedisServer::shared();
//! let database = RedisServer::fresh_database();
//! let url = server.url(database);                       // redis://127.0.0.1:PORT/7
//! let mut redis = server.connect(database).await?;      // the `redis` crate's connection, for looking into it
//!
//! // One of its own, to be restarted, paused, filled up.
//! let own = RedisServer::start(Options { append_only: true, ..Options::default() })?;
//! own.kill_9()?;
//! own.start_again()?;                                   // same port, same directory
//! own.pause()?;                                         // SIGSTOP
//! own.resume()?;
//! own.log().find(0, |line| line.contains("Ready to accept connections")).await?;
//!
//! // TLS: `own.url(0)` names the authority's file. `server.tls()` has the paths.
//! let tls = RedisServer::start(Options { tls: true, ..Options::default() })?;
//!
//! // A master, its replica and a sentinel.
//! let replica = RedisServer::start(Options { replica_of: Some(own.port()), ..Options::default() })?;
//! let sentinel = Sentinel::start(&own)?;
//! let url = sentinel.url(0);                            // with `master_name = "mymaster"`
//! # Ok(()) }
//! ```
//!
//! Every function returns when what it says has happened: a started server answers. Starting and stopping block for
//! milliseconds and need no runtime, so a server may live in a static. All of them end with this process.

mod command;
mod sentinel;
mod until;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::child::{self, free_port};
use crate::lines::Lines;
use crate::tls::Tls;

pub use command::Options;
pub use sentinel::{MASTER_NAME, Sentinel};

/// Databases of the shared server: a number for every test there will ever be, a few bytes each.
const DATABASES: u32 = 4096;
/// Somebody else may take a port between our look and the server's; not so often in a row.
const PORTS_TRIED: usize = 20;
/// What a server writes when it serves.
const READY: &str = "Ready to accept connections";
/// The same for a sentinel.
const SENTINEL_READY: &str = "+monitor master";

/// A running `redis-server`. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    options: Options,
    port: u16,
    tls: Option<Tls>,
    /// Held while it is started or ended. None: it was killed.
    child: Mutex<Option<Child>>,
    log: Lines,
    directory: TempDir,
}

impl RedisServer {
    /// The plain one of this test binary: nothing on disk, no password, thousands of databases.
    ///
    /// # Panics
    /// When it can't be started: there is nothing to test then.
    #[allow(clippy::panic, reason = "without a server no test of it can say anything")]
    pub fn shared() -> &'static Self {
        static SERVER: LazyLock<RedisServer> = LazyLock::new(|| {
            let options = Options { databases: DATABASES, ..Options::default() };
            RedisServer::start(options).unwrap_or_else(|error| panic!("{error:#}"))
        });
        &SERVER
    }

    /// The number of a database of the shared server that nobody else uses.
    pub fn fresh_database() -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < DATABASES, "there are more tests than databases");
        number
    }

    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it ends by itself; its log is in the error.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let tls = if options.tls { Some(Tls::make(directory.path())?) } else { None };
        let mut server =
            Self { options, port: 0, tls, child: Mutex::new(None), log: Lines::default(), directory };
        for _ in 0..PORTS_TRIED {
            server.port = free_port()?;
            match server.start_again() {
                Err(_) if server.log.text().contains("Address already in use") => {
                    server.log = Lines::default()
                }
                Ok(()) => return Ok(server),
                Err(error) => return Err(error),
            }
        }
        anyhow::bail!("{PORTS_TRIED} free ports in a row were taken by somebody else")
    }

    /// Starts it again after [`RedisServer::kill_9`] or [`RedisServer::stop`], on the same port, with what it had on disk.
    ///
    /// # Errors
    /// When it runs, or ends by itself; its log is in the error.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        anyhow::ensure!(child.is_none(), "the server on port {} runs already", self.port);
        let mut command = child::mortal("redis-server");
        command.args(self.options.arguments(self.port, self.directory.path(), self.tls.as_ref()));
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let began = self.log.count();
        let mut started =
            child::spawn(command).context("`make setup` installs redis-server where it is missing")?;
        self.log.follow(started.stdout.take().context("the server has no stdout")?);
        let ready = |line: &str| line.contains(READY) || line.contains(SENTINEL_READY);
        match self.log.find_blocking(began, ready) {
            Ok(_) => *child = Some(started),
            Err(error) => {
                started.wait()?;
                return Err(error.context("redis-server did not start"));
            }
        }
        Ok(())
    }

    /// Its port: for TLS if it has TLS, else plain.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database of it, as Celery and rwork take it: with TLS, user and password as the options say.
    pub fn url(&self, database: u32) -> String {
        self.options.url(self.port, database, self.tls.as_ref())
    }

    /// The same by its unix socket, as Celery's broker takes it. Every server has one.
    pub fn unix_url(&self, database: u32) -> String {
        let password =
            self.options.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        format!("redis+socket://{password}{}?virtual_host={database}", self.socket().display())
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(command::SOCKET)
    }

    /// Its own directory: what it keeps on disk is there.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Authority, certificate and key, if it has TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// What it logs.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// A connection to look into it or to tell it something, with every right: over its unix socket, whatever its TLS.
    ///
    /// # Errors
    /// When it does not run, or has another password by now.
    pub async fn connect(&self, database: u32) -> anyhow::Result<MultiplexedConnection> {
        // The crate's own half a second for an answer is short where many tests share two cores.
        let patient =
            redis::AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        Ok(self.client(database)?.get_multiplexed_async_connection_with_config(&patient).await?)
    }

    fn client(&self, database: u32) -> anyhow::Result<redis::Client> {
        let password =
            self.options.password.as_ref().map_or(String::new(), |password| format!("&pass={password}"));
        Ok(redis::Client::open(format!("redis+unix://{}?db={database}{password}", self.socket().display()))?)
    }

    /// Stops it in the middle of whatever it does (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it as `kill -9` does, and returns when it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_9(&self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    /// Ends it as an operator would (SIGTERM), and returns when it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    fn end(&self, signal: Signal) -> anyhow::Result<()> {
        let mut child = self.child();
        let mut ending = child.take().context("the server does not run")?;
        child::signal(&ending, signal)?;
        ending.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        child::signal(self.child().as_ref().context("the server does not run")?, signal)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // One that was killed already is no failure.
        let _ = self.end(Signal::KILL);
    }
}

#[cfg(test)]
mod tests;
