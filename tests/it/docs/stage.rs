//! Where examples are run: a directory like a checkout with its plugins built, and an environment that nothing of this
//! machine has a say in but the Rust toolchain.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rwork_tests::binary::rwork;
use rwork_tests::guests::{guest, root, target_directory};
use tempfile::TempDir;

const PLUGINS: [&str; 4] = ["images", "math", "text", "web"];
/// What examples refer to, besides the plugins.
const FILES: [&str; 4] = [".rwork.toml", "README.md", "CHANGELOG.md", "plugins/images/sample.png"];

/// The directory.
pub(super) struct Stage(TempDir);

impl Stage {
    pub(super) fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        for folder in ["bin", "home", "logs", "work"] {
            fs::create_dir(stage.path(folder)).unwrap();
        }
        symlink(rwork(), stage.path("bin/rwork")).unwrap();
        let work = stage.path("work");
        for name in PLUGINS {
            fs::create_dir_all(work.join("plugins").join(name)).unwrap();
            fs::copy(guest(name), work.join(format!("plugins/{name}/{name}.wasm"))).unwrap();
            copy(&format!("plugins/{name}/plugin.toml"), &work);
        }
        for file in FILES {
            copy(file, &work);
        }
        stage
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// A command that runs on it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.path("work"))
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", format!("{}:{}:{path}", self.path("bin").display(), celery().display()))
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1")
            // Compiled components are kept from run to run: they are found by content.
            .env("XDG_CACHE_HOME", cargo_directory().join("cache"));
        toolchain(&mut command);
        command
    }
}

/// Programs of the Python environment that `make setup` makes, Celery's newest.
fn celery() -> PathBuf {
    target_directory().join("venv/celery-5.7/bin")
}

fn copy(file: &str, to: &Path) {
    fs::copy(root().join(file), to.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// Lets a command use cargo as this test does, without the network, and keep what it compiles apart from the workspace.
pub(super) fn toolchain(command: &mut Command) {
    let home = std::env::var("HOME").unwrap_or_default();
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        command.env(name, std::env::var(name).unwrap_or_else(|_| format!("{home}/{folder}")));
    }
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", cargo_directory());
}

/// Where examples are compiled, for all runs: the SDK and what it needs is compiled once.
pub(super) fn cargo_directory() -> PathBuf {
    target_directory().join("docs")
}

/// Held by whoever compiles examples, so that cargo never has to say that it waits.
pub(super) fn cargo_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
