//! The limit of open files of a worker's process.
//!
//! A worker that meets it fails innocent tasks. So `rwork run` raises the soft limit to what the hard one allows, as other
//! servers do, and does not start where that is too little.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rwork_sandbox::SandboxConfig;

use crate::failure::Failure;

/// Files that a worker needs beside one for each invocation in flight.
const BESIDE: u64 = 128;

/// Limit that is enough for any worker: it is raised no further.
const ENOUGH: u64 = 65_536;

/// Files that a worker of these settings may have open at once.
pub(crate) fn needed(sandbox: &SandboxConfig) -> u64 {
    sandbox.max_in_flight as u64 + BESIDE
}

/// Files that a worker could have open on this system; `None`: there is no limit.
pub(crate) fn allowed() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the soft limit.
///
/// # Errors
/// When the hard one is below what these settings need.
pub(crate) fn raise(sandbox: &SandboxConfig) -> anyhow::Result<()> {
    let needed = needed(sandbox);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH.max(needed)));
    let limit = match current {
        Some(current) if current < wanted => {
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
            wanted
        }
        Some(current) => current,
        None => return Ok(()),
    };
    if limit < needed {
        let message = format!("this process may open {limit} files, and this worker needs up to {needed}");
        let hint = "raise the limit (`ulimit -Hn`, `LimitNOFILE=` of a systemd unit), or lower `worker_max_in_flight`";
        return Err(Failure::failed(message).hint(hint).into());
    }
    Ok(())
}
