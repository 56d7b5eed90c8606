//! What a guest reaches is what was granted.

use std::sync::Arc;

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
    bench.assert_empty();
}

#[test]
fn headers_are_read_when_asked_for() {
    // header("…") with the task's own name has no header of that name; header-names has one name.
    let guest =
        Guest::new("(call $header-names (i32.const 4096)) (call $value (i32.const 4100) (i32.const 1))")
            .import("rwork:task/request@0.1.0", "header-names", "(param i32)");
    assert_eq!(Bench::new(1).outcome(&guest, Limits::default()), success("\u{1}"));
}
