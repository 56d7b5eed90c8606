//! Connections: opening them within the worker's bound, and keeping idle ones for the next request.
//!
//! A connection is kept per scheme, host, port and *address*, so that a later request only takes one whose address
//! its own look-up has named and the address check has passed. Dropping a [`Connection`] closes its socket.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::body::RequestBody;
use super::destination::Destination;
use super::error::EgressError;
use super::limits::HttpLimits;

/// What makes two connections interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) destination: Destination,
    pub(super) address: IpAddr,
}

impl Key {
    pub(super) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.destination.port)
    }
}

/// An open connection; its socket lives in a task of the I/O runtime that ends with this value.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) sender: SendRequest<RequestBody>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Puts HTTP/1.1 on a connected stream.
    pub(super) async fn start<S>(
        key: Key,
        stream: S,
        permit: OwnedSemaphorePermit,
        limits: &HttpLimits,
    ) -> Result<Self, EgressError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let buffer = limits.response_head_bytes_max.max(READ_BUFFER_BYTES_MIN);
        let (sender, connection) = http1::Builder::new()
            .max_header_size(limits.response_head_bytes_max)
            .max_buf_size(buffer)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(EgressError::Protocol)?;
        let driver = tokio::spawn(async move {
            let _open = permit;
            if let Err(error) = connection.await {
                // The request that used the connection reports the same to the guest.
                tracing::trace!(%error, "an outbound connection ended");
            }
        });
        Ok(Self { key, sender, _driver: AbortOnDropHandle::new(driver) })
    }
}

/// hyper refuses to work with less.
const READ_BUFFER_BYTES_MIN: usize = 8192;

/// Idle connections, and the right to open more.
pub(super) struct Pool {
    io: Handle,
    open: Arc<Semaphore>,
    open_max: usize,
    /// Requests waiting for the right to open a connection; while there are any, none is kept idle.
    waiting: AtomicUsize,
    idle_max: usize,
    idle_per_host_max: usize,
    idle_timeout: Duration,
    /// Held for a look at the map, never across an await; both the guests' and the I/O runtime's threads come here.
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    by_key: HashMap<Key, VecDeque<(Instant, Connection)>>,
    count: usize,
    reaping: bool,
    reaper: Option<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("open", &self.open_count()).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(io: Handle, limits: &HttpLimits) -> Arc<Self> {
        Arc::new(Self {
            io,
            open: Arc::new(Semaphore::new(limits.connections_max)),
            open_max: limits.connections_max,
            waiting: AtomicUsize::new(0),
            idle_max: limits.idle_max,
            idle_per_host_max: limits.idle_per_host_max,
            idle_timeout: limits.idle_timeout,
            idle: Mutex::default(),
        })
    }

    /// Open sockets, idle ones included.
    pub(super) fn open_count(&self) -> usize {
        self.open_max.saturating_sub(self.open.available_permits())
    }

    /// Sockets kept for a later request.
    pub(super) fn idle_count(&self) -> usize {
        self.idle().count
    }

    /// The right to open a connection, waiting for one to be closed when all are taken.
    pub(super) async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, EgressError> {
        if let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        drop(self.idle().take_oldest());
        match timeout_at(deadline, Arc::clone(&self.open).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(EgressError::TooManyConnections { max: self.open_max }),
        }
    }

    /// The connection of this key that was used last and is still open.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        self.idle().take_newest(key)
    }

    /// Keeps a connection whose exchange is over, if there is room.
    pub(super) fn put(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.idle();
        let kept_for_host = idle.by_key.get(&connection.key).map_or(0, VecDeque::len);
        let wanted_elsewhere = self.waiting.load(Ordering::Acquire) > 0;
        if wanted_elsewhere || idle.count >= self.idle_max || kept_for_host >= self.idle_per_host_max {
            return;
        }
        idle.by_key.entry(connection.key.clone()).or_default().push_back((Instant::now(), connection));
        idle.count += 1;
        if !idle.reaping {
            idle.reaping = true;
            let reaper = self.io.spawn(reap(Arc::downgrade(self), self.idle_timeout));
            idle.reaper = Some(AbortOnDropHandle::new(reaper));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing panics while the lock is held; a poisoned map would still be a good map.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn take_newest(&mut self, key: &Key) -> Option<Connection> {
        let queue = self.by_key.get_mut(key)?;
        let mut found = None;
        while found.is_none()
            && let Some((_, connection)) = queue.pop_back()
        {
            self.count -= 1;
            found = Some(connection).filter(|connection| !connection.sender.is_closed());
        }
        if queue.is_empty() {
            self.by_key.remove(key);
        }
        found
    }

    fn take_oldest(&mut self) -> Option<Connection> {
        let oldest = |queue: &VecDeque<(Instant, Connection)>| queue.front().map(|(since, _)| *since);
        let key = self.by_key.iter().min_by_key(|(_, queue)| oldest(queue)).map(|(key, _)| key.clone())?;
        let queue = self.by_key.get_mut(&key)?;
        let (_, connection) = queue.pop_front()?;
        self.count -= 1;
        if queue.is_empty() {
            self.by_key.remove(&key);
        }
        Some(connection)
    }

    fn drop_unused(&mut self, before: Instant) {
        for queue in self.by_key.values_mut() {
            queue.retain(|(since, connection)| *since > before && !connection.sender.is_closed());
        }
        self.by_key.retain(|_, queue| !queue.is_empty());
        self.count = self.by_key.values().map(VecDeque::len).sum();
    }
}

/// Closes what stayed unused; runs only while something is idle, so that an idle worker sleeps.
async fn reap(pool: Weak<Pool>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        if let Some(before) = Instant::now().checked_sub(idle_timeout) {
            idle.drop_unused(before);
        }
        if idle.count == 0 {
            idle.reaping = false;
            return;
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
