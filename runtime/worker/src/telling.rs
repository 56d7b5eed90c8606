//! Words about a commit once it is done: its log line, and the answer to whoever waits for it.

use crate::commit::{Became, TaskCommit};
use crate::ending::Ending;

/// Tells what became of a commit.
pub(crate) fn tell(mut commit: TaskCommit) {
    if let Some(ending) = &commit.ending {
        log(&commit, ending);
    }
    if let Some(reply) = commit.reply.take() {
        // A task that was killed meanwhile no longer asks.
        let _ = reply.send(commit.became);
    }
}

/// One line for each ending; a success costs nothing where `info` is off.
fn log(commit: &TaskCommit, ending: &Ending) {
    let (id, name) = commit.label();
    let wall_ms = commit.wall_ms;
    macro_rules! line {
        ($level:ident, $($text:tt)*) => { tracing::$level!(task_id = id, task_name = name, wall_ms, $($text)*) };
    }
    match ending {
        Ending::Succeeded => line!(info, "task succeeded"),
        Ending::Ignored => line!(info, "task ignored"),
        Ending::Replaced => line!(info, "task replaced"),
        Ending::Repeated => line!(info, "task not run again: it has succeeded before"),
        Ending::Expired => line!(info, "task expired before it could start"),
        Ending::Retried => line!(warn, "task will be retried"),
        Ending::Revoked => line!(warn, "task revoked while it ran"),
        Ending::ShutDown => line!(warn, "task ended by shutdown"),
        Ending::HardTimeLimit => line!(warn, "task ended at its hard time limit"),
        Ending::MemoryLimit => line!(warn, "task ended for want of memory"),
        Ending::Trapped => line!(warn, "task trapped: {}", commit.detail),
        Ending::SoftTimeLimit { .. } => line!(warn, "task failed with its soft time limit"),
        Ending::ResultTooLarge { reason } | Ending::Failed { reason } => {
            line!(warn, "task failed: {}", reason.detail)
        }
        Ending::Rejected { requeue, reason } => {
            line!(warn, requeue, "task rejected its message: {}", reason.detail)
        }
        Ending::Refused(reason) => line!(error, "message refused ({}): {}", reason.kind, reason.detail),
        Ending::Lost if commit.became == Became::Lost => {
            line!(warn, "task is another worker's: its outcome here is dropped")
        }
        Ending::Starting | Ending::Parked { .. } | Ending::Released | Ending::HostFault | Ending::Lost => {}
    }
}
