//! Processes that no test outlives: servers and Python beside the workers, each ended by its own pid.
//!
//! A child dies with this process, however that ends: by `kill -9` too, and also when it is kept in a static that nobody
//! drops. Linux binds that to the parent's *thread*, so all are started from one thread that lives as long as the process.

use std::ffi::OsStr;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// The lowest port of a test's own servers: well-known ones are below.
const PORT_MIN: u16 = 10_000;
/// Ports that are looked at, of which few are taken.
const PORTS_TRIED: usize = 100;

type Order = (Command, Sender<io::Result<Child>>);

/// A command whose process will be killed when this one ends. Its pid is that of the program itself.
pub fn mortal(program: impl AsRef<OsStr>) -> Command {
    // Of util-linux, which every Debian has: says what the process gets when its parent dies, then becomes the program.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command, made by [`mortal`].
///
/// # Errors
/// When it can't be started.
#[allow(clippy::panic, reason = "without threads there is no test")]
pub fn spawn(command: Command) -> anyhow::Result<Child> {
    static THREAD: OnceLock<Sender<Order>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::Builder::new()
            .name("children".to_owned())
            .spawn(move || {
                for (mut command, answer) in taken {
                    // Who asked may be gone; the child is then reaped by nobody, and killed at the end.
                    let _ = answer.send(command.spawn());
                }
            })
            .unwrap_or_else(|error| panic!("no thread for child processes: {error}"));
        orders
    });
    let shown = format!("{command:?}");
    let (answer, answered) = channel();
    thread.send((command, answer)).context("the thread of child processes is gone")?;
    let started = answered.recv().context("the thread of child processes is gone")?;
    started.with_context(|| format!("failed to start {shown}"))
}

/// Sends a signal to a child that has not been waited for.
///
/// # Errors
/// When the system refuses.
pub fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process has the id 0")?;
    Ok(kill_process(pid, signal)?)
}

/// A port that nobody listens on now. Another test's server may take it before the child does.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(free_listener()?.local_addr()?.port())
}

/// A listener on loopback, on a port that the system gives to no outgoing connection: while nobody listens there it stays
/// free. (A client that tries it again and again would otherwise be given it one day, and be connected to itself.)
///
/// # Errors
/// When the system has none.
pub fn free_listener() -> anyhow::Result<TcpListener> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing = range.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(PORT_MIN);
    for _ in 0..PORTS_TRIED {
        let random = RandomState::new().build_hasher().finish();
        let Some(port) = random.checked_rem(u64::from(outgoing.saturating_sub(PORT_MIN))) else { break };
        let port = PORT_MIN + u16::try_from(port)?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener);
        }
    }
    Ok(TcpListener::bind(("127.0.0.1", 0))?)
}
