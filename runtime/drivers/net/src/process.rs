//! The process that a consumer is part of, so that one of the same kernel is known to be gone at once.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Our own: `BOOT/PID NAMESPACE/PID/START`; empty where the kernel does not say.
pub fn own() -> String {
    let pid = std::process::id();
    kernel().and_then(|kernel| Some(format!("{kernel}/{pid}/{}", stat(pid)?.1))).unwrap_or_default()
}

/// Whether a process has certainly ended: it was of this kernel and namespace, and no living one has its number and start.
pub(crate) fn is_gone(process: &str) -> bool {
    let gone = || {
        let rest = process.strip_prefix(&kernel()?)?.strip_prefix('/')?;
        let (pid, start) = rest.split_once('/')?;
        let pid: u32 = pid.parse().ok()?;
        // Where processes of others are hidden, only this tells.
        if test_kill_process(Pid::from_raw(pid.try_into().ok()?)?) == Err(Errno::SRCH) {
            return Some(true);
        }
        let (state, is) = stat(pid)?;
        Some(is != start || state == "Z" || state == "X")
    };
    gone().unwrap_or(false)
}

fn kernel() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{}/{}", boot.trim(), namespace.to_str()?))
}

/// State and start of a process, in ticks after the boot.
fn stat(pid: u32) -> Option<(String, String)> {
    const STATE: usize = 0;
    const START: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A program's name may have anything in it, and ends at the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(((*fields.get(STATE)?).to_owned(), (*fields.get(START)?).to_owned()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_who_is_certainly_gone_is_gone() {
        let own = own();
        assert!(!own.is_empty() && !is_gone(&own));
        assert!(!is_gone("") && !is_gone("another boot/pid:[1]/1/1"));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (kernel, start) = (kernel().unwrap(), stat(child.id()).unwrap().1);
        let theirs = format!("{kernel}/{}/{start}", child.id());
        assert!(!is_gone(&theirs));
        assert!(is_gone(&format!("{kernel}/{}/{start}0", child.id())), "another process has its number now");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(is_gone(&theirs));
    }
}
