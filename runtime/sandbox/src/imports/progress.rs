//! `rwork:task/progress`.

use std::sync::Arc;

use super::wait::Ending;
use super::{describe, stop_reason};
use crate::bindings::rwork::task::progress::{Error, Host, Payload};
use crate::convert::payload_in;
use crate::host::HostError;
use crate::state::State;

impl Host for State {
    async fn update(&mut self, state: String, meta: Payload) -> wasmtime::Result<Result<(), Error>> {
        let host = Arc::clone(&self.call.host);
        let told = self.control.stop_requested().is_some();
        let ending = self.effect(told, async move { host.progress(state, payload_in(meta)).await }).await?;
        Ok(match ending {
            Ending::Done(result) => result.map_err(error_out),
            Ending::Stopped(reason) => Err(Error::Stopped(stop_reason(reason))),
        })
    }
}

fn error_out(error: HostError) -> Error {
    match error {
        HostError::Denied(what) => Error::Denied(what),
        HostError::Unavailable(what) => Error::Unavailable(what),
        other => Error::Other(describe(&other)),
    }
}
