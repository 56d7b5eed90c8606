//! The bytes of one connection, request by request and answer by answer.
//!
//! One thread for each direction. The thread of the requests asks [`Faults`] about each and notes what is to be done to its
//! answer; the thread of the answers does it. A protocol that is not known is handed on as it comes.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};

use super::fault::{Cut, Faults, Late, Shared};
use super::gate::Gate;
use super::lock;
use super::wire::{Part, Wire};

/// Read at once.
const CHUNK: usize = 64 << 10;

/// Knowledge of both threads about a connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Set by the first request.
    wire: OnceLock<Wire>,
    /// What is to be done to answers that have not come yet, in order.
    expected: Mutex<VecDeque<Expected>>,
    /// The client is gone, and the server is kept for a late request.
    is_detached: OnceLock<()>,
}

#[derive(Debug)]
enum Expected {
    /// Hand it on.
    Plain,
    /// Cut before or within it, or hold it.
    Meet(Arc<Shared>),
    /// Tell who has delivered the request late.
    Report(Sender<Vec<u8>>),
}

impl Connection {
    /// The next answer is told, and handed on to nobody.
    pub(super) fn report_next(&self, told: Sender<Vec<u8>>) {
        lock(&self.expected).push_back(Expected::Report(told));
    }

    fn wire(&self) -> Wire {
        self.wire.get().copied().unwrap_or(Wire::Opaque)
    }

    fn is_detached(&self) -> bool {
        self.is_detached.get().is_some()
    }
}

/// Hands on between these two until either is closed; then the other one is, too.
pub(super) fn join(client: TcpStream, server: TcpStream, faults: Faults, gate: Arc<Gate>) -> io::Result<()> {
    let connection = Arc::new(Connection {
        wire: OnceLock::new(),
        expected: Mutex::default(),
        is_detached: OnceLock::new(),
    });
    let requests = Requests {
        client: client.try_clone()?,
        server: server.try_clone()?,
        connection: Arc::clone(&connection),
        faults,
        gate: Arc::clone(&gate),
    };
    let answers = Answers { client, server, connection, gate };
    std::thread::spawn(move || requests.run());
    std::thread::spawn(move || answers.run());
    Ok(())
}

/// Why a direction ends.
enum End {
    /// The connection ends.
    Closed,
    /// The client is gone; the server is kept.
    Detached,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

struct Requests {
    client: TcpStream,
    server: TcpStream,
    connection: Arc<Connection>,
    faults: Faults,
    gate: Arc<Gate>,
}

impl Requests {
    fn run(mut self) {
        let end = self.hand_on();
        let _ = self.client.shutdown(Shutdown::Both);
        if !matches!(end, Err(End::Detached)) {
            let _ = self.server.shutdown(Shutdown::Both);
        }
    }

    fn hand_on(&mut self) -> Result<(), End> {
        let mut came = Buffer::default();
        while came.read(&mut self.client)? {
            self.gate.pass();
            let wire = *self.connection.wire.get_or_init(|| Wire::of(&came.0));
            while let Some(request) = came.next(|bytes| wire.request(bytes)) {
                self.pass(wire, &request)?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, wire: Wire, request: &[u8]) -> Result<(), End> {
        let Some(fault) = self.faults.meet(request) else {
            if wire.is_answered(request) {
                lock(&self.connection.expected).push_back(Expected::Plain);
            }
            return Ok(self.server.write_all(request)?);
        };
        match fault.cut {
            Cut::BeforeRequest | Cut::WithinRequest => {
                let part = if fault.cut == Cut::WithinRequest { request.len() / 2 } else { 0 };
                self.server.write_all(request.get(..part).unwrap_or_default())?;
                fault.tell();
                Err(End::Closed)
            }
            Cut::Late => {
                let _ = self.connection.is_detached.set(());
                let server = self.server.try_clone()?;
                let connection = Arc::clone(&self.connection);
                fault.keep(Late { request: request.to_vec(), server, connection });
                Err(End::Detached)
            }
            Cut::HoldRequest => {
                fault.hold();
                lock(&self.connection.expected).push_back(Expected::Plain);
                Ok(self.server.write_all(request)?)
            }
            Cut::BeforeAnswer | Cut::WithinAnswer | Cut::HoldAnswer => {
                lock(&self.connection.expected).push_back(Expected::Meet(fault));
                Ok(self.server.write_all(request)?)
            }
        }
    }
}

struct Answers {
    client: TcpStream,
    server: TcpStream,
    connection: Arc<Connection>,
    gate: Arc<Gate>,
}

impl Answers {
    fn run(mut self) {
        // However it ends, the connection does.
        let _ = self.hand_on();
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let mut came = Buffer::default();
        while came.read(&mut self.server)? {
            self.gate.pass();
            // A server that speaks first does so before the protocol is known.
            let wire = self.connection.wire();
            while let Some(answer) = came.next(|bytes| wire.answer(bytes)) {
                self.pass(wire, answer)?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, wire: Wire, answer: Vec<u8>) -> io::Result<()> {
        let expected = if wire.is_push(&answer) { None } else { lock(&self.connection.expected).pop_front() };
        match expected {
            Some(Expected::Report(told)) => {
                // Who has asked may have gone.
                let _ = told.send(answer);
                Ok(())
            }
            Some(Expected::Meet(fault)) if fault.cut == Cut::HoldAnswer => {
                fault.hold();
                self.client.write_all(&answer)
            }
            Some(Expected::Meet(fault)) => {
                let part = if fault.cut == Cut::WithinAnswer { answer.len() / 2 } else { 0 };
                let written = self.client.write_all(answer.get(..part).unwrap_or_default());
                fault.tell();
                written.and(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            Some(Expected::Plain) | None if self.connection.is_detached() => Ok(()),
            Some(Expected::Plain) | None => self.client.write_all(&answer),
        }
    }
}

/// Bytes that have come and were not handed on yet.
#[derive(Default)]
struct Buffer(Vec<u8>);

impl Buffer {
    /// False: nothing more will come.
    fn read(&mut self, from: &mut TcpStream) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        let count = from.read(&mut chunk)?;
        self.0.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    /// The first part that is whole; all of it, where no part is known.
    fn next(&mut self, end: impl Fn(&[u8]) -> Part) -> Option<Vec<u8>> {
        let end = match end(&self.0) {
            _ if self.0.is_empty() => return None,
            Part::Whole(end) => end,
            Part::Open => return None,
            Part::Foreign => self.0.len(),
        };
        let rest = self.0.split_off(end);
        Some(std::mem::replace(&mut self.0, rest))
    }
}
