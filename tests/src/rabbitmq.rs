//! Real RabbitMQ servers for the tests, on free loopback ports, each a node of its own with a directory of its own.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use rwork_tests::rabbitmq::RabbitServer;
//!
//! // The one that all tests of a binary share; a virtual host of one's own keeps them apart.
//! let server = RabbitServer::shared();
//! let vhost = server.fresh_vhost().await?;
//! let url = server.url(&vhost);                  // amqp://guest:guest@127.0.0.1:PORT/test-7
//! let queues = server.queues(&vhost).await?;     // as the server sees them at this moment
//!
//! // One of its own, to be killed, stopped, starved of memory.
//! let own = RabbitServer::start()?;
//! # Ok(()) }
//! ```
//!
//! A server starts in a few seconds, which is why there is one for all. What `rabbitmqctl` would be asked for, at a second
//! a time, the server's own Erlang shell is told over its standard input in a millisecond ([`RabbitServer::eval`]).
//! Every function returns when what it says has happened. All servers end with this process, however that ends.

mod admin;
mod look;
mod node;
mod shell;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::child::{self, free_port};
use crate::lines::Lines;
use crate::tls::Tls;

pub use admin::Room;
pub use look::{Binding, Exchange, Queue};
use node::Ports;
use shell::Shell;

/// Somebody else may take a port between our look and the server's; not so often in a row.
const STARTS_TRIED: usize = 5;

/// Who may use a server's TLS port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Whoever has a password. A certificate that is shown must be of the server's authority.
    Anybody,
    /// Who shows a certificate, too (`fail_if_no_peer_cert`).
    Certified,
}

/// A running node. Killed when dropped.
#[derive(Debug)]
pub struct RabbitServer {
    ports: Ports,
    tls: Tls,
    /// Held while it is started or ended. None: it was killed.
    running: Mutex<Option<Running>>,
    /// Tells nodes of each other; every node needs one. Ends with the process.
    port_mapper: Child,
    log: Lines,
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    child: Child,
    shell: Shell,
}

impl RabbitServer {
    /// The one of this test binary.
    ///
    /// # Panics
    /// When it can't be started: there is nothing to test then.
    #[allow(clippy::panic, reason = "without a server no test of it can say anything")]
    pub fn shared() -> &'static Self {
        static SERVER: LazyLock<RabbitServer> =
            LazyLock::new(|| RabbitServer::start().unwrap_or_else(|error| panic!("{error:#}")));
        &SERVER
    }

    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// When there is no RabbitMQ, or it ends by itself; its log is in the error.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_for(Clients::Anybody)
    }

    /// Starts one whose TLS port is for these clients, and waits until it serves.
    ///
    /// # Errors
    /// As [`RabbitServer::start`].
    pub fn start_for(clients: Clients) -> anyhow::Result<Self> {
        let mut tried = 0;
        loop {
            tried += 1;
            let server = Self::prepare(clients)?;
            match server.start_again() {
                Err(_) if server.log.text().contains("eaddrinuse") && tried < STARTS_TRIED => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    fn prepare(clients: Clients) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let tls = Tls::make(directory.path())?;
        let ports = Ports {
            plain: free_port()?,
            tls: free_port()?,
            distribution: free_port()?,
            port_mapper: free_port()?,
        };
        node::write_configuration(directory.path(), &ports, &tls, clients)?;
        let port_mapper = node::start_port_mapper(&ports)?;
        let (running, log) = (Mutex::new(None), Lines::default());
        Ok(Self { ports, tls, running, port_mapper, log, directory })
    }

    /// Starts it again after [`RabbitServer::kill_9`], on the same ports, with what it had on disk.
    ///
    /// # Errors
    /// When it runs, or ends by itself; its log is in the error.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let mut running = self.running();
        anyhow::ensure!(running.is_none(), "the server on port {} runs already", self.ports.plain);
        let mut child = child::spawn(node::command(self.directory.path(), &self.ports))
            .context("`make setup` installs rabbitmq-server where it is missing")?;
        let began = self.log.count();
        self.log.follow(child.stdout.take().context("the server has no stdout")?);
        self.log.follow(child.stderr.take().context("the server has no stderr")?);
        let shell = Shell::new(child.stdin.take().context("the server has no stdin")?);
        if let Err(error) = self.log.find_blocking(began, |line| line.contains(node::READY)) {
            child.wait()?;
            return Err(error.context("rabbitmq-server did not start"));
        }
        shell.prepare()?;
        *running = Some(Running { child, shell });
        Ok(())
    }

    /// Its port for plain connections.
    pub fn port(&self) -> u16 {
        self.ports.plain
    }

    /// Its port for TLS.
    pub fn tls_port(&self) -> u16 {
        self.ports.tls
    }

    /// Authority, certificate and key of its TLS. A client may show a certificate of the same authority.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Its own directory: what it keeps on disk is there.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it logs.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// The URL of a virtual host of it, for the user that may do everything.
    pub fn url(&self, vhost: &str) -> String {
        self.url_of("guest", "guest", vhost)
    }

    /// The same for another user.
    pub fn url_of(&self, user: &str, password: &str, vhost: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.ports.plain)
    }

    /// The URL with TLS, checked by the server's own authority.
    pub fn tls_url(&self, vhost: &str) -> String {
        let authority = self.tls.authority.display();
        format!("amqps://guest:guest@localhost:{}/{vhost}?ssl_ca_certs={authority}", self.ports.tls)
    }

    /// The same by whoever shows this certificate.
    pub fn certified_url(&self, vhost: &str, client: &Tls) -> String {
        let (certificate, key) = (client.certificate.display(), client.key.display());
        format!("{}&ssl_certfile={certificate}&ssl_keyfile={key}", self.tls_url(vhost))
    }

    /// A name for a virtual host that nobody else uses.
    pub fn fresh_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
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
        let Running { mut child, .. } = self.running().take().context("the server does not run")?;
        child::signal(&child, Signal::KILL)?;
        child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        child::signal(&self.running().as_ref().context("the server does not run")?.child, signal)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        // One that was killed already is no failure.
        let _ = self.kill_9();
        let _ = self.port_mapper.kill();
        let _ = self.port_mapper.wait();
    }
}
