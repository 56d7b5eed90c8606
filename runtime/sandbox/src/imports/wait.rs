//! The one way in which a host function waits: until its work is done, a stop is requested, or the guest is ended.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use tokio_util::task::AbortOnDropHandle;

use crate::control::Control;
use crate::state::State;
use crate::stop::StopReason;

/// How a wait ended.
pub(super) enum Ending<T> {
    Done(T),
    Stopped(StopReason),
}

/// Waits for `work`, but no longer than until a stop is requested, unless the guest was told before the call: then it
/// may still save what it has.
///
/// # Errors
/// The guest has to end now. As a trap this shows where it was.
pub(super) async fn wait<T>(
    control: &Control,
    told: bool,
    work: impl Future<Output = T>,
) -> wasmtime::Result<Ending<T>> {
    let mut work = pin!(work);
    let mut stop = pin!(control.stop.wait_requested());
    poll_fn(|cx| {
        if let Some(kill) = control.verdict(Instant::now()) {
            return Poll::Ready(Err(wasmtime::Error::new(kill)));
        }
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(Ending::Done(done)));
        }
        if !told && let Poll::Ready(reason) = stop.as_mut().poll(cx) {
            return Poll::Ready(Ok(Ending::Stopped(reason)));
        }
        Poll::Pending
    })
    .await
}

impl State {
    /// Runs an effect on the worker's I/O runtime and waits for it; given up when the wait is.
    ///
    /// # Errors
    /// As [`wait`]; a panic of the host's own.
    pub(super) async fn effect<T: Send + 'static>(
        &mut self,
        told: bool,
        effect: impl Future<Output = T> + Send + 'static,
    ) -> wasmtime::Result<Ending<T>> {
        let running = AbortOnDropHandle::new(self.services.io.spawn(effect));
        match wait(&self.control, told, running).await? {
            Ending::Done(done) => {
                Ok(Ending::Done(done.map_err(|error| wasmtime::Error::new(HostPanicked(error.to_string())))?))
            }
            Ending::Stopped(reason) => Ok(Ending::Stopped(reason)),
        }
    }
}

/// The worker's part of an import panicked: not the guest's fault.
#[derive(Debug, thiserror::Error)]
#[error("a host function failed: {0}")]
pub(crate) struct HostPanicked(String);
