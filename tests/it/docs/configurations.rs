//! `toml` blocks: each is a whole `rwork.toml`, and the real binary reads it. `toml manifest` blocks: each is a whole
//! manifest, and the code that loads plugins reads it. `toml cargo` blocks: each line is one that `rwork new` writes.

use std::path::Path;

use rwork_plugin::Manifest;
use rwork_tests::binary::rwork_in;

use super::{Kind, blocks};

/// Variables that the examples pass on to plugins.
const VARIABLES: [&str; 3] = ["TZ", "LANG", "MY_TOKEN"];
/// Secrets that the examples read.
const FILES: [&str; 1] = ["api-key.txt"];

/// What is wrong with the blocks.
pub(super) fn check() -> Vec<String> {
    let mut wrong = Vec::new();
    for (page, block) in blocks(|kind| *kind == Kind::Configuration) {
        let place = tempfile::tempdir().unwrap();
        for file in FILES {
            std::fs::write(place.path().join(file), "s3cret\n").unwrap();
        }
        let path = place.path().join("rwork.toml");
        std::fs::write(&path, &block.text).unwrap();
        let mut command = rwork_in(place.path());
        command.args(["config", "--config"]).arg(&path).envs(VARIABLES.map(|name| (name, "value")));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() || said.contains("warning:") {
            wrong.push(format!("{}: {said}", page.at(block.line)));
        }
    }
    for (page, block) in blocks(|kind| *kind == Kind::Manifest) {
        if let Err(error) = Manifest::parse(Path::new("plugin.toml"), &block.text) {
            wrong.push(format!("{}: {}", page.at(block.line), error.chain()));
        }
    }
    let place = tempfile::tempdir().unwrap();
    assert!(rwork_in(place.path()).args(["new", "example"]).output().unwrap().status.success());
    let written: String = ["Cargo.toml", ".cargo/config.toml", "src/lib.rs"]
        .map(|file| std::fs::read_to_string(place.path().join("example").join(file)).unwrap())
        .concat();
    // What the quickstart of README.md shows as the plugin that it has just made.
    let scaffold = Kind::Source(Some("greeting".to_owned()));
    for (page, block) in blocks(|kind| *kind == Kind::Cargo || *kind == scaffold) {
        for line in block.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if !written.lines().any(|known| known == line) {
                wrong.push(format!("{}: `rwork new` does not write `{line}`", page.at(block.line)));
            }
        }
    }
    wrong
}
