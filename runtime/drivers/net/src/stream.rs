//! The bytes of a connection, with what client libraries do not offer: ending it from outside, knowing that it has ended and
//! by which TLS alert, its first bytes, which tell whom we have reached, and when it last moved any.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Enough to tell TLS, AMQP and anything else apart, and for all that a server says of itself at first: about 500 bytes.
const FIRST_BYTES: usize = 4096;
/// Read at a time when nothing can be written any more. What counts is how it ends.
const LAST_WORDS: usize = 512;
/// Commands are smaller: they fit the kernel's buffers, whether or not anybody takes them at the other end. Only a stream
/// of larger pieces proves that somebody does.
const WRITE_BYTES_TELLING: usize = 16 << 10;

/// Anything that bytes go through.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Transport for S {}

/// Knows and ends a stream. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// Cancelled by whoever wants the stream to end.
    cut: CancellationToken,
    /// Cancelled by the stream's end.
    lost: CancellationToken,
    /// Written by the stream.
    seen: Arc<Mutex<Seen>>,
    since: Instant,
    /// When bytes last moved, in milliseconds after `since`; written by the stream.
    moved_ms: Arc<AtomicU64>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            cut: CancellationToken::new(),
            lost: CancellationToken::new(),
            seen: Arc::default(),
            since: Instant::now(),
            moved_ms: Arc::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    first: Vec<u8>,
    alert: Option<AlertDescription>,
}

impl Monitor {
    /// Ends the stream when this is dropped, unless it is disarmed: a client library may read on for ever otherwise.
    pub fn cut_on_drop(&self) -> DropGuard {
        self.cut.clone().drop_guard()
    }

    /// Cancelled when nobody uses the stream any more.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The first bytes that came. They are not kept.
    pub fn take_first(&self) -> Vec<u8> {
        self.with(|seen| std::mem::take(&mut seen.first))
    }

    /// The TLS alert that ended it.
    pub fn alert(&self) -> Option<AlertDescription> {
        self.with(|seen| seen.alert)
    }

    /// Tells whether bytes have moved within this time.
    pub fn has_moved_within(&self, time: Duration) -> bool {
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(moved) < time
    }

    fn moved(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream with a monitor.
pub struct MonitoredStream {
    stream: Box<dyn Transport>,
    monitor: Monitor,
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How many of the first bytes are still to be seen.
    unseen: usize,
    /// Why nothing can be written any more, while it is looked for what the other side said before.
    unwritten: Option<io::Error>,
}

impl MonitoredStream {
    /// Watches a stream.
    pub fn new(stream: Box<dyn Transport>, monitor: Monitor) -> Self {
        let is_cut = Box::pin(monitor.cut.clone().cancelled_owned());
        Self { stream, monitor, is_cut, unseen: FIRST_BYTES, unwritten: None }
    }

    fn look(&mut self, came: &[u8]) {
        let new = came.get(..self.unseen.min(came.len())).unwrap_or_default();
        self.unseen -= new.len();
        self.monitor.with(|seen| seen.first.extend_from_slice(new));
    }

    /// Whoever hangs up while we write has said why before, in a TLS alert that nobody would read after a failed write. So
    /// what there is to read comes first, as long as we have heard nothing at all: the end comes soon, as there is no
    /// connection any more.
    fn poll_last_words(&mut self, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Error> {
        let mut bytes = [0; LAST_WORDS];
        while self.unseen == FIRST_BYTES {
            let mut into = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut into) {
                Poll::Pending => {
                    self.unwritten = Some(error);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if into.filled().is_empty() => break,
                Poll::Ready(Ok(())) => self.look(into.filled()),
                Poll::Ready(Err(why)) => {
                    self.hurt(&why);
                    break;
                }
            }
        }
        Poll::Ready(error)
    }

    /// Ends a write: a failed one when it is known why.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Box<dyn Transport>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let error = match self.unwritten.take() {
            Some(error) => error,
            None => match ready!(write(Pin::new(&mut self.stream), cx)) {
                Ok(count) => {
                    if count >= WRITE_BYTES_TELLING {
                        self.monitor.moved();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => error,
            },
        };
        self.poll_last_words(cx, error).map(Err)
    }

    fn hurt(&self, error: &io::Error) {
        let alert = match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => *alert,
            _ => return,
        };
        // The first one tells why.
        self.monitor.with(|seen| seen.alert.get_or_insert(alert).to_owned());
    }
}

impl std::fmt::Debug for MonitoredStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonitoredStream").field("monitor", &self.monitor).finish_non_exhaustive()
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by rwork")));
        }
        let before = into.filled().len();
        let done = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        match &done {
            Ok(()) => {
                self.monitor.moved();
                if self.unseen > 0 {
                    self.look(into.filled().get(before..).unwrap_or_default());
                }
            }
            Err(error) => self.hurt(error),
        }
        Poll::Ready(done)
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx, |stream, cx| stream.poll_flush(cx).map_ok(|()| 0)).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for MonitoredStream {
    fn drop(&mut self) {
        self.monitor.lost.cancel();
    }
}
