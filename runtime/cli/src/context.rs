//! What every command is handed: global flags, the printer, the configuration, the I/O runtime.

use std::sync::OnceLock;

use tokio::runtime::Handle;

use crate::args::Global;
use crate::config::{self, Config};
use crate::printer::Printer;

/// What every command is handed.
#[derive(Debug)]
pub(crate) struct Context {
    /// Global flags, as given.
    pub(crate) global: Global,
    /// The only way to the terminal.
    pub(crate) printer: Printer,
    /// Where broker I/O, leases and timers run; never a guest.
    pub(crate) io: Handle,
    config: OnceLock<Config>,
}

impl Context {
    pub(crate) fn new(global: Global, printer: Printer, io: Handle) -> Self {
        Self { global, printer, io, config: OnceLock::new() }
    }

    /// The configuration, read at the first call: a command that needs none works beside a broken file.
    pub(crate) fn config(&self) -> anyhow::Result<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let loaded = config::load(&self.global, &[])?;
        Ok(self.config.get_or_init(|| loaded))
    }

    /// The configuration with a command's own flags on top: pairs of a key and its value as text. The first call decides.
    pub(crate) fn config_with(&self, flags: &[config::Flag]) -> anyhow::Result<&Config> {
        let loaded = config::load(&self.global, flags)?;
        Ok(self.config.get_or_init(|| loaded))
    }
}
