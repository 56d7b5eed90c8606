//! The command line as its users meet it: the real binary, its exit status and both of its streams.

mod brokers;
mod errors;
mod guarantees;
mod help;
mod life;
mod rabbitmq;
mod redis;
mod worker;

use std::path::Path;
use std::process::{Command, Output};

use rwork_tests::binary::rwork_in;
use tempfile::TempDir;

/// A directory of its own, in which everything that a command leaves behind is found and then removed.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = rwork_in(self.path());
        command.args(arguments);
        command
    }

    /// Runs a command to its end.
    fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(&self.command(arguments).output().unwrap(), self.path())
    }
}

/// What a command answered, with what differs from run to run made alike.
#[derive(Debug)]
struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn of(output: &Output, place: &Path) -> Self {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(&place.display().to_string(), "[dir]")
        };
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The stdout of a command that went well, without the last line break.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout.trim_end().to_owned()
    }

    fn shown(&self) -> String {
        format!("status: {}\n--- stdout\n{}--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}
