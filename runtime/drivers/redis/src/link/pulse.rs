//! When a connection last moved bytes, by which a slow line is told from a silent one; and a TLS alert that ended it, which
//! the client library's error would hide.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Commands are smaller: they fit the kernel's buffers, whether or not anybody takes them at the other end. Only a stream
/// of larger pieces proves that somebody does.
const WRITE_BYTES_TELLING: usize = 16 << 10;

/// The last time bytes were moved. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    since: Instant,
    /// Milliseconds after `since`; written by the stream, read by whoever waits.
    last_ms: Arc<AtomicU64>,
    /// Written by the stream, once.
    alert: Arc<OnceLock<AlertDescription>>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), last_ms: Arc::default(), alert: Arc::default() }
    }

    fn beat(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn hurt(&self, error: &io::Error) {
        if let Some(rustls::Error::AlertReceived(alert)) =
            error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>())
        {
            // The first one tells why.
            let _ = self.alert.set(*alert);
        }
    }

    /// The TLS alert that ended the connection.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        self.alert.get().copied()
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// A stream with a pulse.
#[derive(Debug)]
pub(super) struct Pulsing<S> {
    pub(super) stream: S,
    pub(super) pulse: Pulse,
}

impl<S: AsyncRead + Unpin> AsyncRead for Pulsing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        match &done {
            Ok(()) => self.pulse.beat(),
            Err(error) => self.pulse.hurt(error),
        }
        Poll::Ready(done)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pulsing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        if done.as_ref().is_ok_and(|written| *written >= WRITE_BYTES_TELLING) {
            self.pulse.beat();
        }
        Poll::Ready(done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
