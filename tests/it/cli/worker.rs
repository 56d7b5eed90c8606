//! A running `rwork run`, whose log is waited for.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::Place;

/// Longer than anything that is waited for takes on a busy machine; only a hung worker meets it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Killed when dropped.
pub(super) struct Worker {
    child: Child,
    lines: Receiver<String>,
    /// Every line read so far.
    pub(super) log: Vec<String>,
}

impl Worker {
    /// Starts one with the plugins of `plugins/`, and waits until it consumes.
    pub(super) fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut worker = Self::spawn(place, arguments);
        worker.wait_for("ready");
        worker
    }

    /// Starts one, whatever becomes of it.
    pub(super) fn spawn(place: &Place, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = ["run"].iter().chain(arguments).copied().collect();
        let mut child =
            place.command(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines, log: Vec::new() }
    }

    /// Waits for a line of the log with this text.
    #[track_caller]
    pub(super) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no `{text}` ({error}) in:\n{}", self.log.join("\n")),
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end and reads the rest of the log.
    pub(super) fn end(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.log.extend(self.lines.iter());
        status
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
