//! Standard output and standard error as log lines. Made when a guest asks for them, not before.

use std::sync::Arc;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};

use super::Own;
use crate::host::LogSource;
use crate::output::OutputWriter;
use crate::state::State;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    stdout::add_to_linker::<State, Own>(linker, |state| state)?;
    stderr::add_to_linker::<State, Own>(linker, |state| state)
}

impl stdout::Host for State {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.writer(LogSource::Stdout)
    }
}

impl stderr::Host for State {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.writer(LogSource::Stderr)
    }
}

impl State {
    fn writer(&mut self, source: LogSource) -> wasmtime::Result<Resource<DynOutputStream>> {
        let output = Arc::clone(self.output());
        let writer: DynOutputStream = Box::new(OutputWriter::new(output, source));
        Ok(self.table.push(writer)?)
    }
}
