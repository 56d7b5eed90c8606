//! docs/guarantees.md: each cell says what the binary says, and names tests that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rwork_tests::guests::root;

use super::page::Page;

/// The words that `rwork doctor --guarantees` prints.
const PROMISES: &str = "runtime/cli/src/commands/doctor/guarantees/promises.rs";
/// A promise, and a column for each pair of broker and result store.
const COLUMNS: usize = 6;

/// Faults of the page.
pub(super) fn check() -> Vec<String> {
    let page = Page::read("docs/guarantees.md");
    let promises = fs::read_to_string(root().join(PROMISES)).unwrap();
    let mut tests = BTreeMap::new();
    for folder in ["runtime", "tests"] {
        read_tests(&root().join(folder), folder, &mut tests);
    }
    let mut wrong = Vec::new();
    let rows: Vec<_> = page.rows().into_iter().skip(1).collect();
    let mut say = |line: usize, what: String| wrong.push(format!("{}: {what}", page.at(line)));
    for (line, cells) in &rows {
        if cells.len() != COLUMNS {
            say(*line, format!("expected {COLUMNS} cells, got {}", cells.len()));
        }
        for (place, cell) in cells.iter().enumerate() {
            let (words, named) = taken_apart(cell);
            if !promises.contains(&format!("\"{words}\"")) {
                say(*line, format!("`rwork doctor --guarantees` does not say `{words}`"));
            }
            if place > 0 && named.is_empty() {
                say(*line, format!("`{words}` names no test"));
            }
            named.iter().filter(|name| !exists(&tests, name)).for_each(|name| {
                say(*line, format!("there is no test `{name}`"));
            });
        }
    }
    let table = promises.split_once("PROMISES: ").map_or("", |(_, table)| table);
    let promised: usize = ["\n    all(", "\n    by_broker(", "\n    Promise {"]
        .map(|start| table.matches(start).count())
        .iter()
        .sum();
    if promised != rows.len() {
        wrong.push(format!("docs/guarantees.md has {} rows, and the binary {promised} promises", rows.len()));
    }
    wrong
}

/// ``never (`a::b`, `a::c`)`` → `never` and the names.
fn taken_apart(cell: &str) -> (&str, Vec<&str>) {
    match cell.rsplit_once(" (`") {
        Some((words, names)) => (words, names.split('`').step_by(2).filter(|name| *name != ")").collect()),
        None => (cell, Vec::new()),
    }
}

/// Names of functions, by path of their file.
fn read_tests(folder: &Path, name: &str, tests: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && file != "target" && !file.starts_with('.') {
            read_tests(&path, &format!("{name}/{file}"), tests);
        } else if let Some(stem) = file.strip_suffix(".rs") {
            tests.insert(format!("{name}/{stem}"), fs::read_to_string(&path).unwrap());
        }
    }
}

/// `a::b::c`: a file `…/a/b.rs` has a function `c`.
fn exists(tests: &BTreeMap<String, String>, name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let file = format!("/{}", module.replace("::", "/"));
    let function = format!("fn {function}(");
    tests.iter().any(|(path, text)| path.ends_with(&file) && text.contains(&function))
}

#[test]
fn cells_are_taken_apart() {
    assert_eq!(taken_apart("never (`a::b`, `a::c`)"), ("never", vec!["a::b", "a::c"]));
    assert_eq!(taken_apart("after `x` deaths (`a::b`)"), ("after `x` deaths", vec!["a::b"]));
    assert_eq!(taken_apart("a promise"), ("a promise", vec![]));
    let tests = [("tests/it/a/b".to_owned(), "async fn c() {}".to_owned())].into();
    assert!(exists(&tests, "a::b::c") && exists(&tests, "b::c"));
    assert!(!exists(&tests, "b::d") && !exists(&tests, "x::c") && !exists(&tests, "c"));
}
