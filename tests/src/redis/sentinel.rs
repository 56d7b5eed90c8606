//! A sentinel that watches one master and its replicas.

use super::{Options, RedisServer};

/// By which name the sentinel knows the master.
pub const MASTER_NAME: &str = "mymaster";
/// After how many milliseconds without an answer it takes the master for dead.
const DOWN_AFTER_MS: u32 = 500;

/// A running `redis-server --sentinel`. Killed when dropped.
#[derive(Debug)]
pub struct Sentinel {
    server: RedisServer,
}

impl Sentinel {
    /// Starts one that alone decides about a fail-over.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(master: &RedisServer) -> anyhow::Result<Self> {
        let mut file = format!(
            "sentinel monitor {MASTER_NAME} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {MASTER_NAME} 5000\n",
            master.port()
        );
        if let Some(password) = &master.options.password {
            file.push_str(&format!("sentinel auth-pass {MASTER_NAME} {password}\n"));
        }
        // In the master's directory; the sentinel writes its state into it.
        let path = master.directory().join("sentinel.conf");
        std::fs::write(&path, file)?;
        let options = Options { file: Some(path.display().to_string()), ..Options::default() };
        Ok(Self { server: RedisServer::start(options)? })
    }

    /// The URL of a database of the master; `master_name` goes into the transport options.
    pub fn url(&self, database: u32) -> String {
        format!("sentinel://127.0.0.1:{}/{database}", self.server.port())
    }

    /// The process.
    pub fn server(&self) -> &RedisServer {
        &self.server
    }

    /// Waits until it knows a replica that it could make the master.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn knows_a_replica(&self) -> anyhow::Result<()> {
        self.server.log().find(0, |line| line.contains("+slave ")).await.map(drop)
    }

    /// Waits until it has made a replica the master.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn has_switched(&self) -> anyhow::Result<()> {
        self.server.log().find(0, |line| line.contains("+switch-master")).await.map(drop)
    }
}
