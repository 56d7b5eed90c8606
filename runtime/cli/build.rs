//! Finds out which wasmtime is built in, for `rwork --version`: the lock file is the one place that says it exactly.

#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

use std::path::Path;

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let version = std::fs::read_to_string(lock).ok().and_then(|text| wasmtime_version(&text));
    println!("cargo::rustc-env=RWORK_WASMTIME_VERSION={}", version.as_deref().unwrap_or("unknown"));
}

fn wasmtime_version(lock: &str) -> Option<String> {
    let mut lines = lock.lines().skip_while(|line| *line != "name = \"wasmtime\"").skip(1);
    Some(lines.next()?.strip_prefix("version = \"")?.trim_end_matches('"').to_owned())
}
