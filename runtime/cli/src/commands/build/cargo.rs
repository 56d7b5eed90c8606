//! How cargo is called for a guest, and what becomes of what it made.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The target of guests.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// What a guest is compiled with; the same as `[profile.guest]` of rwork's own workspace, so that both share what they
/// built. The `name` section stays: backtraces read it.
const PROFILE: [&str; 7] = [
    "profile.guest.inherits=\"release\"",
    "profile.guest.opt-level=\"s\"",
    "profile.guest.lto=true",
    "profile.guest.codegen-units=1",
    "profile.guest.panic=\"abort\"",
    "profile.guest.strip=\"debuginfo\"",
    "profile.guest.debug=false",
];

/// How a guest is linked (docs/sdk.md); given only where the folder's own configuration does not say so already.
const RUSTFLAGS: &str = "target.wasm32-wasip2.rustflags=[\"-Clink-arg=--initial-heap=65536\", \"-Clink-arg=-zstack-size=131072\"]";

/// What says that a folder's own configuration links as it should.
const LINKED_ALREADY: [&str; 2] = ["--initial-heap", "--initial-memory"];

/// A component that cargo made.
#[derive(Debug)]
pub(crate) struct Artefact {
    package: String,
    file: PathBuf,
}

/// Fails unless the compiler can make guests.
///
/// # Errors
/// No Rust, or no standard library for the target.
pub(crate) fn require_target() -> anyhow::Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| {
            Failure::failed("failed to start `rustc`").hint("install Rust 1.95 or newer").because(error)
        })?;
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if has_standard_library(&directory) {
        return Ok(());
    }
    let message = format!("the compiler has no standard library for the target `{TARGET}`");
    let hint = format!(
        "run `rustup target add {TARGET}`; where rustup's server can't be reached, `.ci/wasm-target` of rwork's sources"
    );
    Err(Failure::failed(message).hint(hint).into())
}

/// Whether a folder holds a compiled `std`.
pub(crate) fn has_standard_library(directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Compiles one folder; returns its components. Cargo's own messages go to stderr as they come.
///
/// # Errors
/// No `Cargo.toml`, a failed build, or a package that makes no component.
pub(crate) fn build(folder: &Path, locked: bool) -> anyhow::Result<Vec<Artefact>> {
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        let message = format!("`{}` is no plugin's folder: it has no Cargo.toml", folder.display());
        return Err(Failure::usage(message).hint("`rwork new NAME` starts a plugin").into());
    }
    let manifest = manifest.canonicalize()?;
    let mut command = command(folder, &manifest, locked)?;
    let mut cargo = command.stdout(Stdio::piped()).spawn().map_err(|error| {
        Failure::failed("failed to start `cargo`").hint("install Rust 1.95 or newer").because(error)
    })?;
    let messages = cargo.stdout.take().map(BufReader::new);
    let mut artefacts = Vec::new();
    for line in messages.into_iter().flat_map(BufReader::lines) {
        artefacts.extend(artefact(&line?, &manifest));
    }
    let status = cargo.wait()?;
    if !status.success() {
        return Err(Failure::failed(format!("`{}` does not compile", folder.display())).into());
    }
    if artefacts.is_empty() {
        let message = format!("`{}` makes no component", folder.display());
        let hint = "its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`";
        return Err(Failure::failed(message).hint(hint).into());
    }
    Ok(artefacts)
}

fn command(folder: &Path, manifest: &Path, locked: bool) -> anyhow::Result<Command> {
    let mut command = Command::new("cargo");
    // Cargo looks for its configuration from where it is started.
    command.current_dir(folder).arg("build").arg("--manifest-path").arg(manifest);
    command.args(["--profile", "guest", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    if !links_already(folder)? {
        command.args(["--config", RUSTFLAGS]);
    }
    if locked {
        command.arg("--locked");
    }
    Ok(command)
}

/// Whether a `.cargo/config.toml`, here or above, has the link settings: twice the same would be another build.
fn links_already(folder: &Path) -> anyhow::Result<bool> {
    let folder = folder.canonicalize()?;
    let configurations = folder.ancestors().map(|above| above.join(".cargo/config.toml"));
    Ok(configurations
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|text| LINKED_ALREADY.iter().any(|flag| text.contains(flag))))
}

/// The component in one of cargo's messages, if the package of this manifest made one.
fn artefact(line: &str, manifest: &Path) -> Option<Artefact> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message.get("reason")? != "compiler-artifact"
        || message.get("manifest_path")?.as_str()? != manifest.to_str()?
    {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    let file = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"))?;
    // `path+file:///somewhere/math#0.1.0`, or `…#math@0.1.0` where folder and package differ.
    let (folder, name) = message.get("package_id")?.as_str()?.rsplit_once('#')?;
    let package = match name.split_once('@') {
        Some((package, _)) => package,
        None => folder.rsplit('/').next()?,
    };
    Some(Artefact { package: package.to_owned(), file: PathBuf::from(file) })
}

/// Copies a component into a folder under its package's name: written beside, then renamed, so that a watching worker
/// never sees half of it.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn install(artefact: &Artefact, folder: &Path) -> anyhow::Result<PathBuf> {
    let failed = |error| {
        Failure::failed(format!("failed to write `{}.wasm` into `{}`", artefact.package, folder.display()))
            .because(error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join(format!("{}.wasm", artefact.package));
    let beside = folder.join(format!(".{}.wasm.{}", artefact.package, std::process::id()));
    std::fs::copy(&artefact.file, &beside).map_err(failed)?;
    std::fs::rename(&beside, &path).map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_packages_component_is_taken() {
        let manifest = Path::new("/p/math/Cargo.toml");
        let line = |manifest: &str, id: &str, file: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{manifest}","package_id":"{id}","filenames":["{file}"]}}"#
            )
        };
        let made = |line: String| artefact(&line, manifest).map(|artefact| artefact.package);
        assert_eq!(
            made(line("/p/math/Cargo.toml", "path+file:///p/math#0.1.0", "/t/math.wasm")),
            Some("math".into())
        );
        assert_eq!(
            made(line("/p/math/Cargo.toml", "path+file:///p/math#sums@0.1.0", "/t/sums.wasm")),
            Some("sums".into())
        );
        assert_eq!(made(line("/p/sdk/Cargo.toml", "path+file:///p/sdk#0.1.0", "/t/sdk.wasm")), None);
        assert_eq!(made(line("/p/math/Cargo.toml", "path+file:///p/math#0.1.0", "/t/libmath.rlib")), None);
        assert_eq!(made("not json".into()), None);
    }
}
