//! The servers that a URL names, of which any will do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rwork_protocol::service::{Error, RedactedUrl};

use crate::race::race;
use crate::{Deadline, Failure, chain};

/// A list of servers.
#[derive(Debug)]
pub struct ServerList<E> {
    url: RedactedUrl,
    servers: Vec<E>,
    /// Shows one of them to people.
    show: fn(&E) -> RedactedUrl,
    /// Index of the one that is tried first: the one that worked last.
    first: AtomicUsize,
}

impl<E: Clone> ServerList<E> {
    /// `url`: all of them, for people.
    pub fn new(url: RedactedUrl, servers: Vec<E>, show: fn(&E) -> RedactedUrl) -> Self {
        Self { url, servers, show, first: AtomicUsize::new(0) }
    }

    /// Connects to the first server that lets us in, beginning with the one that worked last.
    ///
    /// One deadline holds for the whole list, however long it is. The next server is asked when the one before has failed, or
    /// has kept silent for its turn; it may still be the first to answer.
    ///
    /// # Errors
    /// Of several failures the one that somebody must mend, or else that of the server that comes first.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connect<W, F: Future<Output = Result<W, Failure>>>(
        &self,
        deadline: Deadline,
        connect: impl Fn(E, Deadline) -> F,
    ) -> Result<W, Failure> {
        let attempt = |(index, server): (usize, E)| {
            let attempt = connect(server, deadline.rest());
            async move { attempt.await.map(|connection| (index, connection)) }
        };
        match race(self.in_order(), self.turn(deadline), attempt).await {
            Ok(won) => {
                let (index, connection) = won.value;
                self.connected(index, won.failure);
                Ok(connection)
            }
            Err(failure) => {
                Err(failure.unwrap_or_else(|| Failure::unreachable(&self.url, "no server is named", "")))
            }
        }
    }

    /// Half of the time is shared out among the turns, so that the last server, too, has the other half.
    fn turn(&self, deadline: Deadline) -> Duration {
        let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(1);
        deadline.left() / 2 / servers
    }

    /// Each once, with its index.
    fn in_order(&self) -> impl Iterator<Item = (usize, E)> {
        let begin = self.first.load(Ordering::Relaxed);
        self.servers.iter().cloned().enumerate().cycle().skip(begin).take(self.servers.len())
    }

    /// Says so when it is another server than before.
    fn connected(&self, index: usize, failure: Option<Failure>) {
        if self.first.swap(index, Ordering::Relaxed) == index {
            return;
        }
        let Some(server) = self.servers.get(index) else { return };
        let why = failure.map(Error::from);
        let error = why.as_ref().map_or_else(|| "no answer in its turn".to_owned(), |why| chain(why));
        let hint = why.as_ref().and_then(Error::hint);
        tracing::warn!(url = %(self.show)(server), error, hint, "moved on to another server of the list");
    }
}
