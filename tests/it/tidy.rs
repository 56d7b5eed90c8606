//! House style that a machine can check: module docs, leftovers, file sizes, paths of somebody's machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines past which a file has a seam that was not found.
const LINES_MAX: usize = 600;

#[test]
fn every_module_opens_with_what_it_owns() {
    for (path, text) in sources() {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        assert!(
            first.starts_with("//!") || first.starts_with("#!["),
            "{} does not open with a module doc",
            path.display()
        );
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: look for the seam", path.display());
    }
}

#[test]
fn nothing_unfinished_is_left() {
    // Put together here, so that this file does not find itself.
    let leftovers = [
        "todo".to_owned() + "!(",
        "unimplemented".to_owned() + "!(",
        "FIX".to_owned() + "ME",
        "XX".to_owned() + "X:",
    ];
    for (path, text) in sources() {
        for leftover in &leftovers {
            assert!(!text.contains(leftover.as_str()), "{} contains `{leftover}`", path.display());
        }
    }
}

#[test]
fn no_file_names_somebodys_machine() {
    let home = "/ro".to_owned() + "ot/";
    for (path, text) in sources() {
        assert!(!text.contains(&home), "{} contains a path of one machine", path.display());
    }
}

/// Every Rust source of the workspace.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for top in ["runtime", "sdk", "plugins", "tests"] {
        collect(&root.join(top), &mut found);
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

fn collect(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}
