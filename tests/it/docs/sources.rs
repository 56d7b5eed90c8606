//! `rust` blocks: each becomes a package with the SDK, and cargo compiles them natively and runs their tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use rwork_tests::guests::root;

use super::stage::{cargo_directory, cargo_turn, toolchain};
use super::{Kind, blocks};

/// A package in the making.
struct Package {
    name: String,
    /// Page and line of each of its blocks, for the error.
    places: String,
    source: String,
}

/// What is wrong with the blocks.
pub(super) fn check() -> Vec<String> {
    let packages = packages();
    let workspace = cargo_directory().join("examples");
    let _turn = cargo_turn();
    write(&workspace, &packages);
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&workspace).args(["test", "--quiet", "--workspace", "--no-fail-fast"]);
    toolchain(&mut cargo);
    let output = cargo.output().unwrap();
    if output.status.success() {
        return Vec::new();
    }
    let places: Vec<String> =
        packages.iter().map(|package| format!("package `{}`: {}", package.name, package.places)).collect();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    vec![format!("{}\n{}", places.join("\n"), said.concat())]
}

fn packages() -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for (page, block) in blocks(|kind| matches!(kind, Kind::Source(_))) {
        let place = page.at(block.line);
        if block.text.contains("#[test]") {
            let tested = packages.last_mut().unwrap_or_else(|| panic!("{place} tests nothing"));
            tested
                .source
                .push_str(&format!("\n#[cfg(test)]\nmod tests {{\nuse super::*;\n{}}}\n", block.text));
            tested.places = format!("{}, {place}", tested.places);
            continue;
        }
        let name = match Kind::of(&block.info) {
            Some(Kind::Source(Some(name))) => name,
            _ => format!("{}-{}", page.stem(), block.line),
        };
        assert!(
            packages.iter().all(|other| other.name != name),
            "{place}: there is another package `{name}`"
        );
        packages.push(Package { name, places: place, source: block.text });
    }
    packages
}

fn write(workspace: &Path, packages: &[Package]) {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    // Every example is alone in its crate, so that what it does not use is for its reader's sake.
    write_file(
        workspace,
        "Cargo.toml",
        &format!(
            "[workspace]\nresolver = \"3\"\nmembers = {names:?}\n\n[workspace.lints.rust]\ndead_code = \"allow\"\n"
        ),
    );
    // The versions that the workspace has: they are on this machine already.
    write_file(workspace, "Cargo.lock", &fs::read_to_string(root().join("Cargo.lock")).unwrap());
    for Package { name, source, .. } in packages {
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\ndoctest = false\n\n\
             [lints]\nworkspace = true\n\n\
             [dependencies]\nrwork = {{ path = {:?} }}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n",
            root().join("sdk")
        );
        write_file(workspace, &format!("{name}/Cargo.toml"), &manifest);
        write_file(workspace, &format!("{name}/src/lib.rs"), source);
    }
}

/// Leaves a file alone that is as it should be: cargo then compiles nothing.
fn write_file(workspace: &Path, file: &str, text: &str) {
    let path = workspace.join(file);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
