//! `rwork:task/stop`: the wish to stop as a pollable, for guests that wait in WASI.

use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::bindings::rwork::task::stop::Host;
use crate::control::Control;
use crate::state::State;

struct StopSignal(Arc<Control>);

#[async_trait]
impl Pollable for StopSignal {
    async fn ready(&mut self) {
        if self.0.stop_requested().is_none() {
            self.0.stop.wait_requested().await;
        }
    }
}

impl Host for State {
    fn subscribe(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let signal = self.table.push(StopSignal(Arc::clone(&self.control)))?;
        subscribe(&mut self.table, signal)
    }
}
