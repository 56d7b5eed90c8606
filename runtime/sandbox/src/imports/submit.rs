//! `rwork:task/submit`: sending tasks, and waiting for one.

use std::sync::Arc;
use std::time::Duration;

use super::stop_reason;
use super::wait::Ending;
use crate::bindings::rwork::task::submit::{Error, Host, Payload, Signature, Submitted};
use crate::convert::{failure_out, payload_in, payload_out};
use crate::host::{self, HostError};
use crate::state::State;

/// Signatures of one call; a larger fan-out takes several, or a group's own signature.
const SIGNATURES_MAX: usize = 10_000;

impl Host for State {
    async fn send(&mut self, signature: Signature) -> wasmtime::Result<Result<Submitted, Error>> {
        Ok(match self.submit(vec![signature]).await? {
            Ok(sent) => match sent.into_iter().next() {
                Some(submitted) => Ok(submitted),
                None => Err(Error::Other("the worker published nothing".to_owned())),
            },
            Err(error) => Err(error),
        })
    }

    async fn send_many(
        &mut self,
        signatures: Vec<Signature>,
    ) -> wasmtime::Result<Result<Vec<Submitted>, Error>> {
        self.submit(signatures).await
    }

    async fn await_result(
        &mut self,
        id: String,
        timeout_ms: u64,
    ) -> wasmtime::Result<Result<Payload, Error>> {
        if let Some(denied) = self.denied() {
            return Ok(Err(denied));
        }
        if let Some(reason) = self.control.stop_requested() {
            return Ok(Err(Error::Stopped(stop_reason(reason))));
        }
        let host = Arc::clone(&self.call.host);
        let timeout = Duration::from_millis(timeout_ms);
        let ending = self.effect(false, async move { host.await_result(id, timeout).await }).await?;
        Ok(match ending {
            Ending::Done(result) => result.map(payload_out).map_err(error_out),
            Ending::Stopped(reason) => Err(Error::Stopped(stop_reason(reason))),
        })
    }
}

impl State {
    async fn submit(
        &mut self,
        signatures: Vec<Signature>,
    ) -> wasmtime::Result<Result<Vec<Submitted>, Error>> {
        if let Some(denied) = self.denied() {
            return Ok(Err(denied));
        }
        if signatures.len() > SIGNATURES_MAX {
            return Ok(Err(Error::TooLarge(format!("at most {SIGNATURES_MAX} signatures in one call"))));
        }
        let host = Arc::clone(&self.call.host);
        let signatures = signatures.into_iter().map(payload_in).collect();
        let told = self.control.stop_requested().is_some();
        let ending = self.effect(told, async move { host.submit(signatures).await }).await?;
        Ok(match ending {
            Ending::Done(Ok(sent)) => Ok(sent.into_iter().map(submitted_out).collect()),
            Ending::Done(Err(error)) => Err(error_out(error)),
            Ending::Stopped(reason) => Err(Error::Stopped(stop_reason(reason))),
        })
    }

    /// Only `describe` gets here without the grant: a plugin that imports this is refused at load otherwise.
    fn denied(&self) -> Option<Error> {
        let granted = self.grants.as_ref().is_some_and(|grants| !grants.submit.is_empty());
        (!granted).then(|| Error::Denied("`submit` is not granted".to_owned()))
    }
}

fn submitted_out(submitted: host::Submitted) -> Submitted {
    Submitted { id: submitted.id, result_tuple: submitted.result_tuple }
}

fn error_out(error: HostError) -> Error {
    match error {
        HostError::Denied(what) => Error::Denied(what),
        HostError::Invalid(what) => Error::Invalid(what),
        HostError::TooLarge(what) => Error::TooLarge(what),
        HostError::Unavailable(what) => Error::Unavailable(what),
        HostError::TimedOut => Error::TimedOut,
        HostError::Failed(failure) => Error::Failed(failure_out(failure)),
    }
}
