//! A guest's frames, for people: demangled, without the panic machinery above and the entry below.

use std::fmt::Write;

use rustc_demangle::demangle;
use wasmtime::WasmBacktrace;

use crate::engine::BACKTRACE_FRAMES;
use crate::text::{neutralise, truncate};

/// Frames of a pathological program may have names of megabytes.
const NAME_BYTES_MAX: usize = 256;

/// Functions between a panic and what panicked.
const MACHINERY: [&str; 14] = [
    "rust_begin_unwind",
    "rust_panic",
    "__rust_start_panic",
    "__rustc::",
    "core::panicking::",
    "std::panicking::",
    "std::process::abort",
    "std::sys::",
    "core::option::expect_failed",
    "core::option::unwrap_failed",
    "core::result::unwrap_failed",
    "core::slice::index::slice_",
    "alloc::alloc::handle_alloc_error",
    "abort",
];

/// One line per frame, innermost first, repeated ones once; none when no frame is left.
pub(crate) fn render(backtrace: &WasmBacktrace) -> Option<String> {
    let frames = backtrace.frames().iter().map(|frame| {
        let name = frame.func_name().map_or_else(
            || format!("<function {}>", frame.func_index()),
            |name| format!("{:#}", demangle(truncate(name, 4 * NAME_BYTES_MAX))),
        );
        let place = frame.symbols().iter().find_map(|symbol| Some((symbol.file()?, symbol.line()?)));
        match place {
            Some((file, line)) => format!("{} at {file}:{line}", truncate(&name, NAME_BYTES_MAX)),
            None => truncate(&name, NAME_BYTES_MAX).to_owned(),
        }
    });
    let frames: Vec<String> = frames.collect();
    let mut text = String::new();
    for (index, same) in relevant(&frames).chunk_by(|one, next| one == next).enumerate() {
        let [frame, again @ ..] = same else { continue };
        let times = if again.is_empty() { String::new() } else { format!(" ({} times)", same.len()) };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{index:>4}: {}{times}", neutralise(frame));
    }
    text.truncate(text.trim_end().len());
    (!text.is_empty()).then_some(text)
}

/// Whether there are more frames than are kept: a recursion.
pub(crate) fn is_deep(backtrace: &WasmBacktrace) -> bool {
    backtrace.frames().len() >= BACKTRACE_FRAMES
}

/// What the author wrote, or everything where nothing would be left.
fn relevant(frames: &[String]) -> &[String] {
    let is_machinery = |frame: &String| MACHINERY.iter().any(|name| frame.starts_with(name));
    let first = frames.iter().take_while(|frame| is_machinery(frame)).count();
    let last = frames.iter().position(|frame| is_entry(frame)).unwrap_or(frames.len());
    frames.get(first..last).filter(|frames| !frames.is_empty()).unwrap_or(frames)
}

fn is_entry(frame: &str) -> bool {
    ["rwork:task/handler@", "rwork:task/cleanup@", "_export_run_cabi"].iter().any(|name| frame.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_author_wrote_is_kept() {
        let frames = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (given, expect) in [
            (
                frames(&[
                    "rust_begin_unwind",
                    "core::panicking::panic_fmt",
                    "math::fail",
                    "rwork:task/handler@0.1.0#run",
                ]),
                frames(&["math::fail"]),
            ),
            (
                frames(&["a", "core::panicking::panic_fmt", "b", "rwork:task/handler@0.1.0#run", "c"]),
                frames(&["a", "core::panicking::panic_fmt", "b"]),
            ),
            (frames(&["rwork:task/handler@0.1.0#run"]), frames(&["rwork:task/handler@0.1.0#run"])),
            (frames(&[]), frames(&[])),
        ] {
            assert_eq!(relevant(&given), expect);
        }
    }
}
