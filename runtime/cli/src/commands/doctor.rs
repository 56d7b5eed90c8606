//! `rwork doctor`: being written.

use std::process::ExitCode;

use crate::context::Context;

/// Arguments of `rwork doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) async fn run(_args: Args, _context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
