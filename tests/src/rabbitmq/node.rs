//! How a node is set up: its files, its environment, and the port mapper that every Erlang node wants.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::Clients;
use crate::child;
use crate::lines::Lines;
use crate::tls::Tls;

/// What a node logs when it serves.
pub(super) const READY: &str = "Server startup complete";
/// Where Debian has it. The wrappers of the same name in `sbin` switch to a user of their own.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// What `epmd -d -d` says when it listens.
const PORT_MAPPER_READY: &str = "entering the main select() loop";

/// All of them on the loopback interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) tls: u16,
    pub(super) distribution: u16,
    pub(super) port_mapper: u16,
}

pub(super) fn write_configuration(
    directory: &Path,
    ports: &Ports,
    tls: &Tls,
    clients: Clients,
) -> anyhow::Result<()> {
    std::fs::write(directory.join("plugins"), "[].\n")?;
    let (authority, certificate, key) =
        (tls.authority.display(), tls.certificate.display(), tls.key.display());
    // Data sets of tests are small: the smallest limit there is keeps a full disk of the machine out of it.
    let text = format!(
        "listeners.ssl.1 = 127.0.0.1:{}\n\
         ssl_options.cacertfile = {authority}\n\
         ssl_options.certfile = {certificate}\n\
         ssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = {}\n\
         disk_free_limit.absolute = 1MB\n",
        ports.tls,
        clients == Clients::Certified,
    );
    Ok(std::fs::write(directory.join("rabbit.conf"), text)?)
}

/// A port mapper in the foreground. Left to itself a node starts one that outlives it.
pub(super) fn start_port_mapper(ports: &Ports) -> anyhow::Result<Child> {
    let mut command = child::mortal("epmd");
    command.args(["-d", "-d", "-address", "127.0.0.1", "-port", &ports.port_mapper.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut mapper =
        child::spawn(command).context("`make setup` installs rabbitmq-server with its Erlang")?;
    let log = Lines::default();
    log.follow(mapper.stderr.take().context("epmd has no stderr")?);
    log.find_blocking(0, |line| line.contains(PORT_MAPPER_READY)).context("epmd did not start")?;
    Ok(mapper)
}

/// The node in the foreground, with its Erlang shell on standard input.
pub(super) fn command(directory: &Path, ports: &Ports) -> Command {
    let mut command = child::mortal(PROGRAM);
    // Of a node's environment every name has a say in something.
    command.env_clear();
    for (name, value) in std::env::vars_os().filter(|(name, _)| name == "PATH") {
        command.env(name, value);
    }
    let file = |name: &str| directory.join(name);
    command
        .current_dir(directory)
        .env("HOME", directory)
        .env("LANG", "C.UTF-8")
        .env("RABBITMQ_NODENAME", format!("rwork_{}_{}@localhost", std::process::id(), ports.plain))
        .env("RABBITMQ_NODE_PORT", ports.plain.to_string())
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env("ERL_EPMD_PORT", ports.port_mapper.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_MNESIA_BASE", file("mnesia"))
        .env("RABBITMQ_LOG_BASE", file("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", file("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"))
        .env("RABBITMQ_CONFIG_FILE", file("rabbit"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        // Keeps the shell on standard input, and the script out of the way: the node has the pid that was started.
        .env("RABBITMQ_ALLOW_INPUT", "true")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
