//! How a server is set up: its options, as arguments of `redis-server` and as a URL.

use std::path::Path;

use crate::tls::Tls;

/// The unix socket's name in the server's directory.
pub(super) const SOCKET: &str = "redis.sock";

/// What a server has. The default is a plain one that keeps nothing on disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// Append-only file with `appendfsync always`: what was answered survives `kill -9`.
    pub append_only: bool,
    /// TLS instead of plain TCP, with a certificate of an authority of its own for `localhost` and `127.0.0.1`.
    pub tls: bool,
    /// `requirepass`.
    pub password: Option<String>,
    /// Memory limit such as `16mb`, with `maxmemory-policy noeviction`.
    pub memory_max: Option<String>,
    /// Port of the server on this machine whose replica it is.
    pub replica_of: Option<u16>,
    /// How many databases, numbered from 0.
    pub databases: u32,
    /// A configuration file to start from, such as a sentinel's.
    pub file: Option<String>,
    /// Further arguments, such as `--user`.
    pub more: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            append_only: false,
            tls: false,
            password: None,
            memory_max: None,
            replica_of: None,
            // Redis's own default.
            databases: 16,
            file: None,
            more: Vec::new(),
        }
    }
}

impl Options {
    /// What follows `redis-server`.
    pub(super) fn arguments(&self, port: u16, directory: &Path, tls: Option<&Tls>) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        let mut say = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        if let Some(file) = &self.file {
            say(&[file, "--sentinel"]);
        }
        let port = port.to_string();
        say(&["--bind", "127.0.0.1", "--dir", &directory.to_string_lossy()]);
        say(&["--unixsocket", &directory.join(SOCKET).to_string_lossy()]);
        // Debian's build has a default file to log to only in its own configuration; none is read here.
        say(&["--daemonize", "no"]);
        match tls {
            None => say(&["--port", &port]),
            Some(tls) => {
                say(&["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
                say(&["--tls-cert-file", &tls.certificate.to_string_lossy()]);
                say(&["--tls-key-file", &tls.key.to_string_lossy()]);
                say(&["--tls-ca-cert-file", &tls.authority.to_string_lossy()]);
            }
        }
        if self.file.is_none() {
            say(&["--databases", &self.databases.to_string(), "--save", "", "--enable-debug-command", "yes"]);
            // For `RedisServer::until`.
            say(&["--notify-keyspace-events", "KA"]);
            say(&["--appendonly", if self.append_only { "yes" } else { "no" }, "--appendfsync", "always"]);
        }
        if let Some(password) = &self.password {
            say(&["--requirepass", password, "--masterauth", password]);
        }
        if let Some(limit) = &self.memory_max {
            say(&["--maxmemory", limit, "--maxmemory-policy", "noeviction"]);
        }
        if let Some(master) = self.replica_of {
            say(&["--replicaof", &format!("127.0.0.1 {master}"), "--repl-diskless-sync-delay", "0"]);
        }
        arguments.extend(self.more.iter().cloned());
        arguments
    }

    /// The URL of a database of a server with these options.
    pub(super) fn url(&self, port: u16, database: u32, tls: Option<&Tls>) -> String {
        let password = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        match tls {
            None => format!("redis://{password}127.0.0.1:{port}/{database}"),
            Some(tls) => format!(
                "rediss://{password}localhost:{port}/{database}?ssl_cert_reqs=required&ssl_ca_certs={}",
                tls.authority.display()
            ),
        }
    }
}
