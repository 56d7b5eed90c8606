//! A task that cleans up behind itself, even when it is ended from outside.
//!
//! `copy` writes a temporary file. If its run is ended by the hard time limit, the memory limit or a trap, `remove_partial`
//! is called in a new instance, with the call and the reason.

use std::fs;
use std::path::Path;

use rwork::{Context, Ended, TaskError, log};

/// Copies a file, by way of a temporary one beside the target.
#[rwork::task(name = "files.copy", time_limit = "1m", cleanup = remove_partial)]
pub fn copy(from: &str, to: &str) -> Result<u64, TaskError> {
    let partial = partial_name(to);
    let bytes = fs::copy(from, &partial)?;
    fs::rename(&partial, to)?;
    Ok(bytes)
}

fn remove_partial(ctx: &Context, ended: &Ended) {
    let Ok(Some(to)) = ended.argument::<String>("to") else { return };
    let partial = partial_name(&to);
    if Path::new(&partial).exists() {
        log::info!("{} ended by {}: removing {partial}", ctx.id(), ended.reason());
        if let Err(error) = fs::remove_file(&partial) {
            log::warn!("{partial} stays: {error}");
        }
    }
}

fn partial_name(to: &str) -> String {
    format!("{to}.partial")
}

rwork::plugin!(copy);
