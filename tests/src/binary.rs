//! The real `rwork` binary: built once per test run, found beside the test's own executable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::child;

/// The path of the `rwork` binary, of the profile that the tests were built with. The first call builds it, so that plain
/// `cargo test -p rwork-tests` never runs an old one; when it is up to date that takes a fraction of a second.
///
/// # Panics
/// When it can't be built.
#[allow(clippy::panic, reason = "without the binary no test of it can say anything")]
pub fn rwork() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build().unwrap_or_else(|error| panic!("{error:#}")))
}

fn build() -> anyhow::Result<PathBuf> {
    // `target/PROFILE/deps/it-HASH`
    let own = std::env::current_exe()?;
    let profile = own
        .ancestors()
        .nth(2)
        .ok_or_else(|| anyhow::anyhow!("expected {} to be in `target/PROFILE/deps`", own.display()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // As the Makefile builds it: with the features of the whole workspace, so that no dependency is built twice.
    build.args(["build", "--quiet", "--locked", "--workspace", "--bin", "rwork"]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if let Some(target) = profile.parent() {
        build.arg("--target-dir").arg(target);
    }
    let status = build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status()?;
    anyhow::ensure!(status.success(), "failed to build the `rwork` binary");
    Ok(profile.join("rwork"))
}

/// A command of the binary that nothing of this machine has a say in: a directory of its own to run in, no `RWORK_*`
/// variables, no colours, a fixed width.
pub fn rwork_in(directory: &Path) -> Command {
    alone(Command::new(rwork()), directory)
}

/// The same of any such binary, whose process dies with the thread that starts it: with this process at the latest, however that ends.
pub fn mortal_in(binary: &Path, directory: &Path) -> Command {
    alone(child::mortal(binary), directory)
}

/// A binary of the edition before, from `RWORK_BEFORE`, for runs with workers of both.
pub fn before() -> Option<PathBuf> {
    std::env::var_os("RWORK_BEFORE").map(PathBuf::from)
}

fn alone(mut command: Command, directory: &Path) -> Command {
    command
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}
