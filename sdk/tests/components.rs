//! Builds guests with the real toolchain and looks at what comes out: imports, exports, memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::path::PathBuf;
use std::process::Command;

use wasmparser::{ComponentTypeRef, Parser, Payload};

const TARGET: &str = "wasm32-wasip2";

/// Memory of a small guest at its start, in pages: stack, data and 64 KiB of heap, by the link settings of
/// `.cargo/config.toml`.
const INITIAL_PAGES: u64 = 4;

/// What Rust's standard library imports whatever a program does; the worker offers these to every guest.
const STANDARD: [&str; 2] = ["wasi:cli/", "wasi:io/"];

/// What is seen of a component from outside.
#[derive(Debug, Default)]
struct Component {
    imports: Vec<String>,
    exports: Vec<String>,
    initial_pages: u64,
}

impl Component {
    /// The names after `rwork:task/`, sorted.
    fn rwork_imports(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.imports.iter().filter_map(|name| name.strip_prefix("rwork:task/")).collect();
        names.sort_unstable();
        names
    }

    /// Imports that are neither rwork's nor those of every program.
    fn further_imports(&self) -> Vec<&str> {
        let known = |name: &str| {
            name.starts_with("rwork:task/") || STANDARD.iter().any(|prefix| name.starts_with(prefix))
        };
        self.imports.iter().map(String::as_str).filter(|name| !known(name)).collect()
    }
}

/// Builds one package or example for the guest target, in the folder that this test was built in.
fn build(selection: &[&str], file: &str) -> Component {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_path_buf();
    let output = Command::new(env!("CARGO"))
        .current_dir(&root)
        .args(["build", "--quiet", "--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .args(selection)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "building {selection:?} failed; is the target there? `.ci/wasm-target` installs it\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    inspect(&std::fs::read(target.join(TARGET).join("guest").join(file)).unwrap())
}

fn inspect(wasm: &[u8]) -> Component {
    let mut found = Component::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                let imports = imports.into_iter().map(Result::unwrap);
                let instances = imports.filter(|import| matches!(import.ty, ComponentTypeRef::Instance(_)));
                found.imports.extend(instances.map(|import| import.name.name.to_owned()));
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                found.exports.extend(exports.into_iter().map(|export| export.unwrap().name.name.to_owned()));
            }
            Payload::MemorySection(memories) => {
                found.initial_pages +=
                    memories.into_iter().map(|memory| memory.unwrap().initial).sum::<u64>();
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_plugin_that_does_nothing_asks_for_nothing() {
    let noop = build(&["-p", "rwork", "--example", "noop"], "examples/noop.wasm");
    assert_eq!(noop.exports, ["rwork:task/handler@0.1.0"]);
    assert_eq!(noop.rwork_imports(), ["log@0.1.0", "types@0.1.0"]);
    assert_eq!(noop.further_imports(), Vec::<&str>::new());
    assert_eq!(noop.initial_pages, INITIAL_PAGES);
}

#[test]
fn a_plugin_imports_what_its_tasks_use() {
    let math = build(&["-p", "math"], "math.wasm");
    assert_eq!(math.exports, ["rwork:task/handler@0.1.0"]);
    // `sleep` waits and `retry` counts; nothing stores progress, nothing sends.
    assert_eq!(math.rwork_imports(), ["limits@0.1.0", "log@0.1.0", "request@0.1.0", "types@0.1.0"]);
    assert_eq!(math.further_imports(), Vec::<&str>::new());
    assert_eq!(math.initial_pages, INITIAL_PAGES);
}

#[test]
fn the_other_examples_import_what_they_are_about() {
    let interfaces = |component: &Component| {
        let names =
            component.further_imports().into_iter().map(|name| name.split('@').next().unwrap().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    };
    let text = build(&["-p", "text"], "text.wasm");
    assert_eq!(text.rwork_imports(), ["limits@0.1.0", "log@0.1.0", "types@0.1.0"]);
    assert_eq!(
        interfaces(&text),
        ["wasi:clocks/wall-clock", "wasi:filesystem/preopens", "wasi:filesystem/types"]
    );
    let images = build(&["-p", "images"], "images.wasm");
    assert_eq!(images.rwork_imports(), ["limits@0.1.0", "log@0.1.0", "types@0.1.0"]);
    assert_eq!(interfaces(&images), Vec::<String>::new());
    let web = build(&["-p", "web"], "web.wasm");
    assert_eq!(web.rwork_imports(), ["limits@0.1.0", "log@0.1.0", "stop@0.1.0", "types@0.1.0"]);
    assert_eq!(
        interfaces(&web),
        ["wasi:clocks/monotonic-clock", "wasi:http/outgoing-handler", "wasi:http/types"]
    );
    // `images` carries the tables of its decoders.
    for (component, pages) in [(&text, INITIAL_PAGES), (&images, INITIAL_PAGES + 1), (&web, INITIAL_PAGES)] {
        assert_eq!(component.exports, ["rwork:task/handler@0.1.0"]);
        assert_eq!(component.initial_pages, pages);
    }
}

#[test]
fn the_cleanup_hook_is_exported_when_a_task_declares_one() {
    let tidy = build(&["-p", "rwork", "--example", "tidy"], "examples/tidy.wasm");
    let mut exports = tidy.exports.clone();
    exports.sort_unstable();
    assert_eq!(exports, ["rwork:task/cleanup@0.1.0", "rwork:task/handler@0.1.0"]);
    assert!(
        tidy.further_imports()
            .iter()
            .all(|name| name.starts_with("wasi:filesystem/") || name.starts_with("wasi:clocks/")),
        "{tidy:?}"
    );
}
