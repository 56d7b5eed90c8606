//! The bytes of a connection, with three things the client library does not offer: ending it from outside, knowing that it
//! has ended, and its first bytes, which tell whom we have reached.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Enough to tell TLS, AMQP and anything else apart, and for all that a server says of itself at first: about 500 bytes.
const FIRST_BYTES: usize = 4096;
/// Read at a time when nothing can be written any more. What counts is how it ends.
const LAST_WORDS: usize = 512;

/// Anything that bytes go through.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Transport for S {}

/// Knows and ends a stream. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cutter {
    /// Cancelled by whoever wants the stream to end.
    cut: CancellationToken,
    /// Cancelled by the stream's end.
    lost: CancellationToken,
    /// Written by the stream.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    first: Vec<u8>,
    alert: Option<AlertDescription>,
}

impl Cutter {
    /// Ends the stream.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Ends the stream when this is dropped, unless it is disarmed: the library reads on for ever otherwise.
    pub(super) fn cut_on_drop(self) -> CutOnDrop {
        CutOnDrop(Some(self))
    }

    /// Cancelled when nobody uses the stream any more.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The first bytes that came. They are not kept.
    pub(super) fn take_first(&self) -> Vec<u8> {
        self.with(|seen| std::mem::take(&mut seen.first))
    }

    /// The TLS alert that ended it.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        self.with(|seen| seen.alert)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ends a stream that was given up.
#[derive(Debug)]
pub(super) struct CutOnDrop(Option<Cutter>);

impl CutOnDrop {
    /// The stream is wanted.
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(cutter) = &self.0 {
            cutter.cut();
        }
    }
}

/// A stream that can be cut.
pub(super) struct Cuttable {
    stream: Box<dyn Transport>,
    cutter: Cutter,
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How many of the first bytes are still to be seen.
    unseen: usize,
    /// Why nothing can be written any more, while it is looked for what the other side said before.
    unwritten: Option<io::Error>,
}

impl Cuttable {
    pub(super) fn new(stream: Box<dyn Transport>, cutter: Cutter) -> Self {
        let is_cut = Box::pin(cutter.cut.clone().cancelled_owned());
        Self { stream, cutter, is_cut, unseen: FIRST_BYTES, unwritten: None }
    }

    fn look(&mut self, came: &[u8]) {
        let new = came.get(..self.unseen.min(came.len())).unwrap_or_default();
        self.unseen -= new.len();
        self.cutter.with(|seen| seen.first.extend_from_slice(new));
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
                Ok(count) => return Poll::Ready(Ok(count)),
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
        self.cutter.with(|seen| seen.alert.get_or_insert(alert).to_owned());
    }
}

impl AsyncRead for Cuttable {
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
            Ok(()) if self.unseen > 0 => self.look(into.filled().get(before..).unwrap_or_default()),
            Ok(()) => {}
            Err(error) => self.hurt(error),
        }
        Poll::Ready(done)
    }
}

impl AsyncWrite for Cuttable {
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

impl Drop for Cuttable {
    fn drop(&mut self) {
        self.cutter.lost.cancel();
    }
}
