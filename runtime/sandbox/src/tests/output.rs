//! What guests print, end to end.

use super::guest::Guest;
use super::{Bench, success};
use crate::{Limits, Outcome};

const WRITE: &str = "[method]output-stream.blocking-write-and-flush";

fn writer(stream: &str, run: &str) -> Guest {
    Guest::new(run)
        .import(&format!("wasi:cli/{stream}@0.2.1"), &format!("get-{stream}"), "(result i32)")
        .import("wasi:io/streams@0.2.1", WRITE, "(param i32 i32 i32 i32)")
}

#[test]
fn a_flood_of_output_is_cut_and_the_task_succeeds() {
    // 64 MiB in writes of 4 KiB, which is what the standard library writes at most.
    let guest = writer(
        "stdout",
        "(local $out i32) (local $left i32)
         (local.set $out (call $get-stdout)) (local.set $left (i32.const 16384))
         (loop (call $blocking-write-and-flush (local.get $out) (i32.const 8192) (i32.const 4096) (i32.const 4096))
           (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if 0 (local.get $left)))
         (call $ok)",
    );
    let bench = Bench::new(1);
    let report = bench.run(&guest, Limits { log_bytes_max: 1_000, ..Limits::default() });
    assert_eq!(report.outcome, success("null"));
    assert!(report.usage.log_bytes_dropped > 60 << 20, "{:?}", report.usage);
    let lines = bench.host.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], "Stdout output cut here: this invocation wrote more than its 1000 bytes");
}

#[test]
fn a_trap_comes_with_the_end_of_stderr() {
    let guest = writer(
        "stderr",
        "(call $blocking-write-and-flush (call $get-stderr) (i32.const 3110) (i32.const 9) (i32.const 4096)) unreachable",
    );
    let bench = Bench::new(1);
    let Outcome::Trap(trap) = bench.outcome(&guest, Limits::default()) else { panic!("expected a trap") };
    assert_eq!(trap.stderr, "\\u{1b}[31mboom");
    assert_eq!(bench.host.lines(), ["Stderr \\u{1b}[31mboom"]);
}
