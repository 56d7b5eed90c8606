//! The host's functions of `wit/`, one module per interface. A new interface is one more module and one line here.

mod limits;
mod log;
mod progress;
mod request;
mod stdio;
mod stop;
mod submit;
pub(crate) mod wait;

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::rwork::task;
use crate::bindings::rwork::task::limits::StopReason as WitStopReason;
use crate::host::HostError;
use crate::state::State;
use crate::stop::StopReason;

type Own = HasSelf<State>;

/// Everything that any guest may import. What a guest *may* import is checked at load, against its grants; what it does
/// with it, again at run time.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    stdio::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    task::types::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    task::request::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    task::limits::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    task::stop::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    task::log::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    task::progress::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    task::submit::add_to_linker::<State, Own>(&mut linker, |state| state)?;
    Ok(linker)
}

impl task::types::Host for State {}

fn stop_reason(reason: StopReason) -> WitStopReason {
    match reason {
        StopReason::SoftTimeLimit => WitStopReason::SoftTimeLimit,
        StopReason::Revoked => WitStopReason::Revoked,
        StopReason::Shutdown => WitStopReason::Shutdown,
    }
}

/// What a host error says where an interface has only a text for it.
fn describe(error: &HostError) -> String {
    error.to_string()
}
