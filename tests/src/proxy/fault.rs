//! Which request is met, what is done to it or its answer, and the handle that tells when that has happened.

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use super::gate::Gate;
use super::lock;
use super::pipe::Connection;

/// Longest wait for the answer to a request that was delivered late; only a hang meets it.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Deed of the proxy at the chosen request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never gets the request.
    BeforeRequest,
    /// The server gets the first half of the request.
    WithinRequest,
    /// The server gets the request; the client gets no answer.
    BeforeAnswer,
    /// The client gets the first half of the answer.
    WithinAnswer,
    /// The client's connection ends; the server gets the request when [`Met::deliver`] is called.
    Late,
    /// Nothing is cut: the request, and what follows it, waits for [`Met::release`].
    HoldRequest,
    /// Nothing is cut: the answer, and what follows it, waits for [`Met::release`].
    HoldAnswer,
}

impl Cut {
    /// Those that end a connection.
    pub const ALL: [Self; 5] =
        [Self::BeforeRequest, Self::WithinRequest, Self::BeforeAnswer, Self::WithinAnswer, Self::Late];
}

/// One request, and what is done to it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The deed.
    cut: Cut,
    /// Bytes that the request contains; empty: any request.
    contains: Vec<u8>,
    /// So many requests of that kind pass before.
    passed: usize,
}

impl Fault {
    /// The next request that contains these bytes: a key, an argument, a command's name. Of a script's call its name is
    /// only a digest.
    pub fn at(cut: Cut, contains: impl AsRef<[u8]>) -> Self {
        Self { cut, contains: contains.as_ref().to_vec(), passed: 0 }
    }

    /// Any request.
    pub fn at_any(cut: Cut) -> Self {
        Self::at(cut, b"")
    }

    /// The same, after so many of that kind.
    #[must_use]
    pub fn after(mut self, passed: usize) -> Self {
        self.passed = passed;
        self
    }
}

/// Tells whether the fault has happened, and lets go what it holds. Dropped before it has happened, it never will.
#[derive(Debug)]
pub struct Met {
    happened: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

impl Met {
    /// Waits until it has happened.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn happened(&self) {
        // The sender lives in `shared`, so that there is an end to wait for.
        let _ = self.happened.clone().wait_for(|happened| *happened).await;
    }

    /// True when it has happened.
    pub fn has_happened(&self) -> bool {
        *self.happened.borrow()
    }

    /// Lets a held request or answer go on.
    pub fn release(&self) {
        self.shared.gate.let_pass();
    }

    /// Delivers a request whose client is gone, and returns the server's answer.
    ///
    /// # Errors
    /// When there is none, or the server does not answer.
    pub fn deliver(&self) -> anyhow::Result<Vec<u8>> {
        let late = lock(&self.shared.late).take().context("no request was held back")?;
        late.deliver()?.recv_timeout(ANSWER_MAX).context("the server did not answer")
    }
}

/// State that handle and connection share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cut: Cut,
    happened: watch::Sender<bool>,
    /// Of held requests and answers.
    gate: Gate,
    late: Mutex<Option<Late>>,
}

impl Shared {
    /// Says that it has happened.
    pub(super) fn tell(&self) {
        self.happened.send_replace(true);
    }

    /// Says so, and waits for the release.
    pub(super) fn hold(&self) {
        self.tell();
        self.gate.pass();
    }

    /// Keeps a request for later.
    pub(super) fn keep(&self, late: Late) {
        *lock(&self.late) = Some(late);
        self.tell();
    }
}

/// A request that the server has not got, and the connection that it came on.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) request: Vec<u8>,
    pub(super) server: TcpStream,
    pub(super) connection: Arc<Connection>,
}

impl Late {
    fn deliver(mut self) -> anyhow::Result<Receiver<Vec<u8>>> {
        let (answer, answered): (Sender<Vec<u8>>, _) = channel();
        self.connection.report_next(answer);
        std::io::Write::write_all(&mut self.server, &self.request)?;
        Ok(answered)
    }
}

/// The faults that are still to happen. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Mutex<Vec<Expected>>>);

/// A fault, and what it shares with its handle.
type Expected = (Fault, Arc<Shared>);

impl Faults {
    pub(super) fn expect(&self, fault: Fault) -> Met {
        let (sender, happened) = watch::channel(false);
        let shared = Arc::new(Shared {
            cut: fault.cut,
            happened: sender,
            gate: Gate::closed(),
            late: Mutex::default(),
        });
        lock(&self.0).push((fault, Arc::clone(&shared)));
        Met { happened, shared }
    }

    /// The fault that this request meets. It is met once.
    pub(super) fn meet(&self, request: &[u8]) -> Option<Arc<Shared>> {
        let mut faults = lock(&self.0);
        // One whose handle was dropped is not expected any more.
        faults.retain(|(_, shared)| Arc::strong_count(shared) > 1);
        let mut met = None;
        for (index, (fault, _)) in faults.iter_mut().enumerate() {
            if !contains(request, &fault.contains) {
                continue;
            }
            if fault.passed == 0 && met.is_none() {
                met = Some(index);
            }
            fault.passed = fault.passed.saturating_sub(1);
        }
        met.map(|index| faults.remove(index).1)
    }
}

fn contains(request: &[u8], part: &[u8]) -> bool {
    part.is_empty() || request.windows(part.len()).any(|window| window == part)
}
