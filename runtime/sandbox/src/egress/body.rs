//! The two bodies of an exchange, counted and timed as they pass.
//!
//! Neither is ever collected: a chunk is in the host only while it crosses.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::WasiBody;

use super::error::EgressError;
use super::pool::{Connection, Pool};

/// How far the guest's body has come; written by the connection's task, read by the one that waits for the response.
#[derive(Debug, Default)]
pub(super) struct Upload {
    steps: AtomicU64,
    finished: AtomicBool,
    waits_for_guest: AtomicBool,
    too_large: AtomicBool,
    aborted: AtomicBool,
}

impl Upload {
    /// Changes whenever something was sent.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Acquire)
    }

    /// Whether the connection is done with the body.
    pub(super) fn finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Whether it is the guest that has to go on, not the server.
    pub(super) fn waits_for_guest(&self) -> bool {
        self.waits_for_guest.load(Ordering::Acquire)
    }

    /// The guest's own fault, which explains whatever else the connection reports.
    pub(super) fn fault(&self, max: u64) -> Option<EgressError> {
        if self.too_large.load(Ordering::Acquire) {
            Some(EgressError::RequestBodyTooLarge { max })
        } else if self.aborted.load(Ordering::Acquire) {
            Some(EgressError::RequestAborted)
        } else {
            None
        }
    }

    fn finish(&self) {
        if !self.finished.swap(true, Ordering::AcqRel) {
            self.steps.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The guest's body on its way out. Dropped by the connection as soon as it needs no more of it.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: WasiBody,
    left: u64,
    upload: Arc<Upload>,
}

impl RequestBody {
    pub(super) fn new(inner: WasiBody, bytes_max: u64) -> (Self, Arc<Upload>) {
        let upload = Arc::new(Upload::default());
        if inner.is_end_stream() {
            upload.finished.store(true, Ordering::Release);
        }
        (Self { inner, left: bytes_max, upload: Arc::clone(&upload) }, upload)
    }
}

/// Why a request body ended early; the connection only passes it on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the request body is over its limit")]
    TooLarge,
    #[error("the guest gave up the request body")]
    Aborted,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.upload.waits_for_guest.store(polled.is_pending(), Ordering::Release);
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                self.upload.aborted.store(true, Ordering::Release);
                return Poll::Ready(Some(Err(UploadError::Aborted)));
            }
            None => {
                self.upload.finish();
                return Poll::Ready(None);
            }
        };
        match self.left.checked_sub(data_bytes(&frame)) {
            Some(left) => {
                self.left = left;
                self.upload.steps.fetch_add(1, Ordering::AcqRel);
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.upload.too_large.store(true, Ordering::Release);
                Poll::Ready(Some(Err(UploadError::TooLarge)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.upload.finish();
    }
}

fn data_bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.remaining() as u64)
}

/// What a response body holds while it is read, and gives back at its end.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: Connection,
    pub(super) upload: Arc<Upload>,
    pub(super) reusable: bool,
    pub(super) pool: Arc<Pool>,
    /// One of the invocation's open requests.
    pub(super) slot: OwnedSemaphorePermit,
}

impl Lease {
    /// A connection on which a body is still being sent can't take a second request.
    fn give_back(self) {
        if self.reusable && self.upload.finished() && self.upload.fault(0).is_none() {
            self.pool.put(self.connection);
        }
        drop(self.slot);
    }
}

/// The server's body on its way to the guest. Dropping it closes the connection, unless its end was reached.
pub(super) struct ResponseBody {
    incoming: Incoming,
    left: u64,
    limits: BodyLimits,
    /// Created on the I/O runtime, so that its timer belongs there whoever polls it.
    silence: Pin<Box<Sleep>>,
    /// Whether the guest waits; only then is silence held against the server.
    timed: bool,
    /// None once the body ended, well or not.
    lease: Option<Lease>,
}

/// The bounds of one response body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    pub(super) bytes_max: u64,
    pub(super) request_bytes_max: u64,
    pub(super) between_bytes: Duration,
    /// End of the invocation.
    pub(super) deadline: Option<Instant>,
}

impl ResponseBody {
    /// Must be called on the I/O runtime.
    pub(super) fn new(incoming: Incoming, limits: BodyLimits, lease: Lease) -> Self {
        let silence = Box::pin(tokio::time::sleep(limits.between_bytes));
        let mut body =
            Self { incoming, left: limits.bytes_max, limits, silence, timed: false, lease: Some(lease) };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn cut(&mut self, error: EgressError) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        self.lease = None;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        if !self.timed {
            self.timed = true;
            let until = Instant::now() + self.limits.between_bytes;
            self.silence.as_mut().reset(self.limits.deadline.map_or(until, |deadline| until.min(deadline)));
        }
        ready!(self.silence.as_mut().poll(cx));
        self.cut(EgressError::BetweenBytesTimeout)
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        self.timed = false;
        let Some(left) = self.left.checked_sub(data_bytes(&frame)) else {
            return self.cut(EgressError::ResponseBodyTooLarge { max: self.limits.bytes_max });
        };
        self.left = left;
        if frame.is_trailers() || self.incoming.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn broken(&self, error: hyper::Error) -> EgressError {
        let own = self.lease.as_ref().and_then(|lease| lease.upload.fault(self.limits.request_bytes_max));
        own.unwrap_or_else(|| {
            if error.is_parse() { EgressError::Protocol(error) } else { EgressError::Incomplete }
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        let this = &mut *self;
        if this.lease.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => this.poll_silence(cx),
            Poll::Ready(Some(Ok(frame))) => this.pass(frame),
            Poll::Ready(Some(Err(error))) => {
                let error = this.broken(error);
                this.cut(error)
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none() || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
