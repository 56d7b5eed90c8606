//! A place before a server that can be shut, fall silent, stand still, or cut one connection at a chosen point: what a
//! broken network looks like from a worker.
//!
//! Owns the listener and its connections. `fault` says which request or answer is met, `pipe` carries the bytes of one
//! connection and does what was said, `wire` finds where requests and answers end.

mod fault;
mod gate;
mod pipe;
mod wire;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;

use crate::child::free_listener;

use fault::Faults;
pub use fault::{Cut, Fault, Met};
use gate::Gate;

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They reach the server.
    Open,
    /// They are refused.
    Shut,
    /// They are taken, and nobody answers.
    Silent,
}

/// A listener on a loopback port of its own that hands connections on. Ends with this process.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
    faults: Faults,
    /// Shut while nothing is handed on.
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct State {
    server: u16,
    mode: Mode,
    /// Both ends of what is open; all of it ends when the mode changes.
    open: Vec<TcpStream>,
    /// Which listener is the present one.
    generation: u64,
    /// Where it runs.
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// One before the server on this port.
    ///
    /// # Errors
    /// When there is no port.
    pub fn before(server: u16) -> anyhow::Result<Self> {
        let listener = free_listener()?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State {
            server,
            mode: Mode::Open,
            open: Vec::new(),
            generation: 0,
            listener: None,
        }));
        let proxy = Self { port, state, faults: Faults::default(), gate: Arc::new(Gate::open()) };
        proxy.listen(listener, 0);
        Ok(proxy)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all that is open; what comes from now on fares as said.
    ///
    /// # Errors
    /// When the port was taken by somebody else while it was shut; when it can't be shut.
    pub fn set(&self, mode: Mode) -> anyhow::Result<()> {
        let was = std::mem::replace(&mut self.state().mode, mode);
        self.cut_all();
        if mode == Mode::Shut && was != Mode::Shut {
            self.state().generation += 1;
            // The listener looks at its generation when somebody comes, and leaves.
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)))?;
            let listener = self.state().listener.take();
            // Until it has left, the port is not free for the next one.
            listener.map(JoinHandle::join);
        }
        if was == Mode::Shut && mode != Mode::Shut {
            let listener =
                TcpListener::bind(("127.0.0.1", self.port)).context("the proxy's port was taken")?;
            let generation = self.state().generation;
            self.listen(listener, generation);
        }
        Ok(())
    }

    /// Cuts every connection that is open, once. Returns how many ends there were.
    pub fn cut_all(&self) -> usize {
        let open = std::mem::take(&mut self.state().open);
        for stream in &open {
            // One whose other side is gone already is what was wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
        open.len()
    }

    /// Sends later connections to the server on another port; those that are open stay.
    pub fn lead_to(&self, server: u16) {
        self.state().server = server;
    }

    /// Hands nothing on, in either direction, until [`Proxy::thaw`]. Connections stay open.
    pub fn freeze(&self) {
        self.gate.shut();
    }

    /// Hands on again, what came meanwhile first.
    pub fn thaw(&self) {
        self.gate.let_pass();
    }

    /// Cuts or holds one request or answer, once, while the answer to this call is kept.
    #[must_use]
    pub fn on(&self, fault: Fault) -> Met {
        self.faults.expect(fault)
    }

    fn listen(&self, listener: TcpListener, generation: u64) {
        let state = Arc::clone(&self.state);
        let (faults, gate) = (self.faults.clone(), Arc::clone(&self.gate));
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if lock(&state).generation != generation {
                    return;
                }
                // One that fails is refused by being dropped.
                let _ = take(&state, client, &faults, &gate);
            }
        });
        self.state().listener = Some(thread);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(state: &Mutex<State>, client: TcpStream, faults: &Faults, gate: &Arc<Gate>) -> io::Result<()> {
    let mut state = lock(state);
    if state.mode == Mode::Shut {
        return Ok(());
    }
    if state.mode == Mode::Silent {
        state.open.push(client);
        return Ok(());
    }
    // A server that is not there: the client is closed with what is dropped here.
    let server = TcpStream::connect(("127.0.0.1", state.server))?;
    state.open.extend([client.try_clone()?, server.try_clone()?]);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pipe::join(client, server, faults.clone(), Arc::clone(gate))
}

#[cfg(test)]
mod tests;
