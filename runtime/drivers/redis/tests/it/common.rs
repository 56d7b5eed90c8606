//! A Redis server for one test: a process, a port and a folder of its own, gone with the test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rwork_redis::{Error, Options, Redis, Role};
use tempfile::TempDir;

/// Another process may take a port between our looking and the server's binding.
const STARTS_MAX: usize = 5;
/// A wait that is longer has no end: far above what any of these takes.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// A `redis-server`.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// A plain one.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// One with these arguments after ours; `{port}` and `{folder}` in them are replaced.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self { port: 0, folder, arguments, process: None };
        for _ in 0..STARTS_MAX {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server did not start: see its log above");
    }

    /// Starts it again on its port, with its files.
    pub(crate) fn restart(&mut self) {
        assert!(self.launch(), "redis-server did not start again");
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Takes connections, and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// A connection of the test's own, past everything that is tested.
    pub(crate) async fn admin(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(HANG));
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    fn launch(&mut self) -> bool {
        let folder = self.folder.path().to_str().unwrap();
        let fill = |text: &String| text.replace("{port}", &self.port.to_string()).replace("{folder}", folder);
        let mut arguments: Vec<String> = self.arguments.iter().map(fill).collect();
        // A sentinel reads a file, which must be first.
        let is_sentinel = arguments.last().is_some_and(|last| last == "--sentinel");
        if !is_sentinel {
            let plain = ["--bind", "127.0.0.1", "--save", "", "--dir", folder].map(str::to_owned);
            arguments.splice(0..0, plain);
            if !arguments.iter().any(|argument| argument == "--port") {
                arguments.splice(0..0, ["--port".to_owned(), self.port.to_string()]);
            }
        }
        let mut process = Command::new("redis-server")
            .args(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("`redis-server` runs: install it (Debian: redis-server, redis-sentinel)");
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let mut lines = String::new();
        loop {
            let begin = lines.len();
            if log.read_line(&mut lines).unwrap() == 0 {
                process.wait().unwrap();
                eprintln!("{lines}");
                return false;
            }
            let line = &lines[begin..];
            if line.contains("Ready to accept connections")
                || line.contains("The server is now ready to accept connections")
                || (is_sentinel && line.contains("+monitor"))
            {
                break;
            }
        }
        // Whatever it logs later must not fill the pipe.
        thread::spawn(move || drop(std::io::copy(&mut log.by_ref(), &mut std::io::sink())));
        self.process = Some(process);
        true
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A sentinel that watches this master under the name `mymaster`.
pub(crate) fn sentinel(master: u16, more: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    for _ in 0..STARTS_MAX {
        let port = free_port();
        let lines = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds mymaster 300\nsentinel failover-timeout mymaster 2000\n{more}\n",
            dir = folder.path().display()
        );
        fs::write(&file, lines).unwrap();
        let arguments = vec![file.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let mut server = Server { port, folder: tempfile::tempdir().unwrap(), arguments, process: None };
        if server.launch() {
            // The file lives where the server's own files do.
            server.folder = folder;
            return server;
        }
    }
    panic!("the sentinel did not start: see its log above");
}

/// Connects as a broker.
pub(crate) async fn broker(url: &str) -> Result<Redis, Error> {
    Redis::connect(Options::parse(url, Role::Broker)?).await
}

/// Writes a PEM file and returns its path.
pub(crate) fn pem(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Fails instead of hanging.
pub(crate) async fn within<T>(what: &str, act: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, act).await.unwrap_or_else(|_| panic!("{what} hangs"))
}
