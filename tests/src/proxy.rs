//! A place before a server that can be shut, or fall silent: what a broken network looks like from a worker.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;

use crate::child::free_listener;

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
        let proxy = Self { port, state };
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
        for stream in self.state().open.drain(..) {
            // One whose other side is gone already is what was wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
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

    fn listen(&self, listener: TcpListener, generation: u64) {
        let state = Arc::clone(&self.state);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if lock(&state).generation != generation {
                    return;
                }
                // One that fails is refused by being dropped.
                let _ = take(&state, client);
            }
        });
        self.state().listener = Some(thread);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(state: &Arc<Mutex<State>>, client: TcpStream) -> io::Result<()> {
    let mut state = lock(state);
    if state.mode == Mode::Shut {
        return Ok(());
    }
    state.open.push(client.try_clone()?);
    if state.mode == Mode::Silent {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", state.server))?;
    state.open.push(server.try_clone()?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    hand_on(from_client, to_server);
    hand_on(server, client);
    Ok(())
}

/// Until either end is closed; then the other one is, too.
fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_comes_is_handed_on_refused_or_left_alone() {
        let echo = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::before(echo.local_addr().unwrap().port()).unwrap();
        std::thread::spawn(move || {
            for mut client in echo.incoming().map_while(Result::ok) {
                let mut word = [0; 2];
                while client.read_exact(&mut word).is_ok() && client.write_all(&word).is_ok() {}
            }
        });
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
        let mut word = [0; 2];
        let mut open = connect().unwrap();
        open.write_all(b"hi").unwrap();
        open.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"hi");
        proxy.set(Mode::Silent).unwrap();
        assert_eq!(open.read(&mut word).unwrap_or(0), 0, "what was open is closed");
        let mut silent = connect().unwrap();
        silent.write_all(b"hi").unwrap();
        proxy.set(Mode::Shut).unwrap();
        assert_eq!(silent.read(&mut word).unwrap_or(0), 0, "nobody had answered");
        proxy.set(Mode::Open).unwrap();
        let mut again = connect().unwrap();
        again.write_all(b"ho").unwrap();
        again.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"ho");
    }
}
