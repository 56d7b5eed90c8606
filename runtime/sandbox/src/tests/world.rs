//! What is refused before anything runs, and `describe`.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use super::guest::{Guest, other_world};
use crate::{CleanupReason, Error, Grants, Limits, Sandbox, SandboxConfig};

#[test]
fn a_plugin_says_what_it_offers() {
    let bench = Bench::new(1);
    let prepared = bench.prepare(&Guest::new("call $ok"));
    let description = bench.io.block_on(bench.sandbox.describe(&prepared)).unwrap();
    assert_eq!((description.sdk.as_str(), description.options.as_str()), ("wat/1", ""));
    assert_eq!(description.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["guest.run"]);
    bench.assert_empty();
}

#[test]
fn a_describe_that_spins_traps_or_starts_for_ever_is_an_error() {
    let spin = "(loop (br 0)) unreachable";
    for (guest, expect) in [
        (Guest { describe: spin.to_owned(), ..Guest::new("call $ok") }, "it did not return within 250 ms"),
        (
            Guest::new("call $ok").items("(func $init (loop (br 0))) (start $init)"),
            "it did not return within 250 ms",
        ),
        (
            Guest { describe: "unreachable".to_owned(), ..Guest::new("call $ok") },
            "the guest aborted (`unreachable` instruction)",
        ),
    ] {
        let bench = Bench::new(1);
        let prepared = bench.prepare(&guest);
        let error = bench.io.block_on(bench.sandbox.describe(&prepared)).unwrap_err();
        let Error::Describe { plugin, reason } = error else { panic!("{error}") };
        assert_eq!(plugin, "guest");
        assert!(reason.starts_with(expect), "{reason}");
        bench.assert_empty();
    }
}

#[test]
fn a_component_of_another_world_is_refused_by_name() {
    let bench = Bench::new(1);
    let code = bench.sandbox.compile_in_memory(&other_world()).unwrap();
    let error = bench.sandbox.link(&code, "other", Arc::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`other` is not a plugin of this worker: expected the export `rwork:task/handler@0.1.0`, found `hello`"
    );
}

#[test]
fn all_missing_grants_are_listed_with_the_lines_to_add() {
    let guest = Guest::new("call $ok")
        .import("wasi:http/types@0.2.1", "[constructor]fields", "(result i32)")
        .import("rwork:task/submit@0.1.0", "send", "(param i32 i32 i32 i32 i32)");
    let bench = Bench::new(1);
    let code = bench.sandbox.compile_in_memory(&guest.build()).unwrap();
    let error = bench.sandbox.link(&code, "web", Arc::default()).unwrap_err();
    let Error::NotGranted { missing, grant, .. } = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 2);
    assert!(missing.iter().any(|import| import.contains("wasi:http/types@0.2.1")), "{missing:?}");
    let expect = "[plugins.web.grants]\n\
        http = [\"https://api.example.com\"] # the servers that it may reach\n\
        submit = [\"reports.*\"] # the tasks that it may send";
    assert_eq!(grant, expect);
    assert_eq!(error.hint().unwrap(), format!("add to rwork.toml:\n{expect}"));
}

#[test]
fn an_unknown_import_is_named() {
    let guest = Guest::new("call $ok").import("wasi:keyvalue/store@0.2.0-draft", "open", "(param i32 i32)");
    let bench = Bench::new(1);
    let code = bench.sandbox.compile_in_memory(&guest.build()).unwrap();
    let error = bench.sandbox.link(&code, "kv", Arc::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`kv` imports what this worker does not offer: wasi:keyvalue/store@0.2.0-draft"
    );
}

#[test]
fn a_plugin_born_larger_than_any_cap_is_refused_at_load() {
    let guest = Guest::new("call $ok").items("(memory $big 5000)");
    let bench = Bench::new(1);
    let code = bench.sandbox.compile_in_memory(&guest.build());
    let text = match code {
        // The pool itself refuses it while the code is loaded.
        Err(error) => format!("{:?}", error),
        Ok(code) => bench.sandbox.link(&code, "big", Arc::default()).unwrap_err().to_string(),
    };
    assert!(text.contains("memory") || text.contains("memories"), "{text}");
}

#[test]
fn an_artefact_survives_the_way_over_the_disk() {
    let bench = Bench::new(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guest.cwasm");
    std::fs::write(&path, bench.sandbox.compile(&Guest::new("call $ok").build()).unwrap()).unwrap();
    let code = bench.sandbox.load_artefact(&path).unwrap();
    let prepared = Arc::new(bench.sandbox.link(&code, "guest", Arc::default()).unwrap());
    assert_eq!(bench.io.block_on(bench.start(&prepared, Limits::default())).outcome, super::success("null"));

    std::fs::write(directory.path().join("broken.cwasm"), b"\x7fELF not really").unwrap();
    let error = bench.sandbox.load_artefact(&directory.path().join("broken.cwasm")).unwrap_err();
    assert!(matches!(error, Error::Load { .. }), "{error}");
    let again = Sandbox::new(SandboxConfig::with_concurrency(1), bench.io.handle().clone()).unwrap();
    assert_eq!(again.compatibility_hash(), bench.sandbox.compatibility_hash());
}

#[test]
fn invalid_code_in_a_valid_file_does_not_compile() {
    let bench = Bench::new(1);
    let mut wasm = Guest::new("call $ok").build();
    // A section of an unknown kind, of the right length.
    wasm.extend([0x70, 1, 0]);
    let error = bench.sandbox.compile(&wasm).unwrap_err();
    assert!(matches!(error, Error::Compile(_)), "{error}");
}

#[test]
fn a_cleanup_hook_runs_in_its_own_instance_under_its_own_limits() {
    let bench = Bench::new(1);
    let hook = "(call $emit (i32.const 2) (local.get 2) (local.get 3) (i32.const 0) (i32.const 0))";
    let emit = |guest: Guest| guest.import("rwork:task/log@0.1.0", "emit", "(param i32 i32 i32 i32 i32)");
    let guest = emit(Guest { cleanup: Some(hook.to_owned()), ..Guest::new("unreachable") });
    let prepared = bench.prepare(&guest);
    assert!(prepared.has_cleanup());
    let invocation = bench.invocation(Limits::default());
    let reason = CleanupReason::Trap("boom".to_owned());
    bench.io.block_on(bench.sandbox.cleanup(prepared, invocation, reason)).unwrap();
    assert_eq!(bench.host.lines(), ["Log 1234"], "the hook is told the id of the task");
    bench.assert_empty();
}

#[test]
fn a_cleanup_hook_that_spins_is_an_error() {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config =
        SandboxConfig { cleanup_time: Duration::from_millis(30), ..SandboxConfig::with_concurrency(1) };
    let sandbox = Sandbox::new(config, io.handle().clone()).unwrap();
    let bench = Bench { sandbox, host: Arc::default(), io };
    let guest = Guest { cleanup: Some("(loop (br 0))".to_owned()), ..Guest::new("call $ok") };
    let prepared = bench.prepare(&guest);
    let invocation = bench.invocation(Limits::default());
    let cleanup = bench.sandbox.cleanup(prepared, invocation, CleanupReason::HardTimeLimit);
    let error = bench.io.block_on(cleanup).unwrap_err().to_string();
    assert!(
        error.starts_with("the cleanup hook of `guest` failed: it did not return within 30 ms"),
        "{error}"
    );
}

#[test]
fn grants_are_the_operators_whole_say() {
    assert!(Grants::default().submit.is_empty());
    let bench = Bench::new(1);
    assert!(!bench.prepare(&Guest::new("call $ok")).has_cleanup());
}
