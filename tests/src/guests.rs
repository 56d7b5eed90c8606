//! Guest components for the tests, built from their sources by the real SDK, once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Every guest crate of the workspace that tests use, example plugins and fixtures alike.
const PACKAGES: &[&str] = &["math", "text", "images", "web", "hostile", "canary", "history", "noop", "wire"];

/// Path of a built guest: `guest("math")` is `…/math.wasm`.
///
/// # Panics
/// When the guests don't build: there is nothing to test then.
pub fn guest(package: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(build);
    let path = directory.join(format!("{}.wasm", package.replace('-', "_")));
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default()
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn build() -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args([
        "build",
        "--locked",
        "--quiet",
        "--profile",
        "guest",
        "--target",
        "wasm32-wasip2",
    ]);
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo can't be started: {error}"));
    assert!(status.success(), "the guests don't build; run `make setup` for the wasm32-wasip2 target");
    target_directory().join("wasm32-wasip2/guest")
}
