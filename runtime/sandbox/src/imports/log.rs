//! `rwork:task/log`.

use crate::bindings::rwork::task::log::{Host, Level as WitLevel};
use crate::host::Level;
use crate::state::State;
use crate::text::neutralise_lines;

/// Last words are a message and a place, not a dump.
const LAST_WORDS_BYTES_MAX: usize = 8 << 10;

impl Host for State {
    fn enabled(&mut self, level: WitLevel) -> wasmtime::Result<bool> {
        Ok(self.call.host.log_enabled(level_in(level)))
    }

    fn emit(
        &mut self,
        level: WitLevel,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.output().emit(level_in(level), &message, &fields);
        Ok(())
    }

    fn panic(&mut self, message: String, location: Option<String>) -> wasmtime::Result<()> {
        let words = match location {
            Some(location) => format!("panicked at {location}: {message}"),
            None => format!("panicked: {message}"),
        };
        self.last_words = Some(neutralise_lines(&words, LAST_WORDS_BYTES_MAX));
        Ok(())
    }
}

fn level_in(level: WitLevel) -> Level {
    match level {
        WitLevel::Trace => Level::Trace,
        WitLevel::Debug => Level::Debug,
        WitLevel::Info => Level::Info,
        WitLevel::Warn => Level::Warn,
        WitLevel::Error => Level::Error,
    }
}
