//! The thread that keeps what a worker holds: nothing else runs on it, so that no load of ours makes a renewal late.

use std::thread;

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle};

/// Starts the thread. It ends with the process.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn thread() -> anyhow::Result<Handle> {
    let runtime =
        Builder::new_current_thread().enable_all().build().context("failed to start the renewals")?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("rwork-renewals".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .context("failed to start the renewals' thread")?;
    Ok(handle)
}
