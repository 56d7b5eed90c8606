//! What a guest reaches is what was granted.

use std::sync::Arc;
use std::time::Duration;

use super::guest::Guest;
use super::{Bench, success};
use crate::{Access, DirGrant, Grants, Limits, Outcome};

/// Returns how many environment variables there are, as one byte.
fn environment() -> Guest {
    Guest::new("(call $get-environment (i32.const 4096)) (call $value (i32.const 4100) (i32.const 1))")
        .import("wasi:cli/environment@0.2.1", "get-environment", "(param i32)")
}

fn outcome(bench: &Bench, grants: Grants) -> Outcome {
    let code = bench.sandbox.compile_in_memory(&environment().build()).unwrap();
    let prepared = Arc::new(bench.sandbox.link(&code, "guest", Arc::new(grants)).unwrap());
    bench.io.block_on(bench.start(&prepared, Limits::default())).outcome
}

#[test]
fn the_environment_is_empty_unless_granted() {
    let bench = Bench::new(1);
    assert_eq!(outcome(&bench, Grants::default()), success("\0"));
    let env = vec![("KEY".to_owned(), "value".to_owned()), ("OTHER".to_owned(), String::new())];
    assert_eq!(outcome(&bench, Grants { env, ..Grants::default() }), success("\u{2}"));
}

#[test]
fn a_granted_directory_that_is_gone_is_a_host_fault() {
    let directory = tempfile::tempdir().unwrap();
    let grant = |host| Grants {
        dirs: vec![DirGrant { host, guest: "/data".to_owned(), access: Access::Read }],
        ..Grants::default()
    };
    let bench = Bench::new(1);
    assert_eq!(outcome(&bench, grant(directory.path().to_owned())), success("\0"));
    let gone = directory.path().join("gone");
    let Outcome::HostFault(fault) = outcome(&bench, grant(gone.clone())) else {
        panic!("expected a host fault")
    };
    let expect = format!("failed to open the granted directory `{}`", gone.display());
    assert!(fault.starts_with(&expect), "{fault}");
    bench.wait_empty();
}

#[test]
fn a_task_can_send_another_and_wait_for_it() {
    let send = "(call $send (i32.const 3000) (i32.const 16) (i32.const 3090) (i32.const 9) (i32.const 4096))
        (if (i32.load8_u (i32.const 4096)) (then unreachable))
        (call $value (i32.load (i32.const 4100)) (i32.load (i32.const 4104)))";
    let guest = Guest::new(send).import("rwork:task/submit@0.1.0", "send", "(param i32 i32 i32 i32 i32)");
    assert_eq!(Bench::new(1).outcome(&guest, Limits::default()), success("guest.run"));

    // An error (1), of the case `stopped` (6), long before the hour is over.
    let wait = "(call $await-result (i32.const 3090) (i32.const 9) (i64.const 3600000) (i32.const 4096))
        (if (i32.ne (i32.load8_u (i32.const 4096)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.const 4100)) (i32.const 6)) (then unreachable))
        (call $soft)";
    let guest = Guest::new(wait).import("rwork:task/submit@0.1.0", "await-result", "(param i32 i32 i64 i32)");
    let limits = Limits { soft_time: Some(Duration::from_millis(30)), ..Limits::default() };
    let outcome = Bench::new(1).outcome(&guest, limits);
    assert!(matches!(outcome, Outcome::SoftTimeLimit { .. }), "{outcome:?}");
}

#[test]
fn headers_are_read_when_asked_for() {
    // header("…") with the task's own name has no header of that name; header-names has one name.
    let guest =
        Guest::new("(call $header-names (i32.const 4096)) (call $value (i32.const 4100) (i32.const 1))")
            .import("rwork:task/request@0.1.0", "header-names", "(param i32)");
    assert_eq!(Bench::new(1).outcome(&guest, Limits::default()), success("\u{1}"));
}
