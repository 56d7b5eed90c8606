//! Files that are no plugins of this worker's: each is refused with what is wrong and what to do, and hinders no other.

use rwork_sandbox::{Sandbox, SandboxConfig};
use rwork_tests::guests::guest;
use rwork_tests::rig::component::{TextGuest, core_module, foreign};
use rwork_tests::rig::{Rig, Setup};
use tokio::runtime::Handle;

use super::{text, unlimited};

const SPIN: &str = "(loop (br 0)) unreachable";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_loaded_is_refused_by_name_and_the_others_serve() {
    let fine = TextGuest::new("fine.run");
    let spins_in_describe = TextGuest::new("spins.run").describe(SPIN);
    let spins_at_start = TextGuest::new("starts.run").items("(func $init (loop (br 0))) (start $init)");
    let aborts = TextGuest::new("aborts.run").describe("unreachable");
    let curious = TextGuest::new("curious.run").imports_keyvalue();
    let whole = fine.build();
    let native =
        Sandbox::new(SandboxConfig::with_concurrency(1), Handle::current()).unwrap().compile(&whole).unwrap();
    let rig = Setup::new(&["math", "web"])
        .file("fine.wasm", whole.clone())
        .file("aborts.wasm", aborts.build())
        .file("core.wasm", core_module())
        .file("curious.wasm", curious.build())
        .directory("directory.wasm")
        .file("empty.wasm", "")
        .file("foreign.wasm", foreign())
        .file("native.wasm", native.clone())
        // By its own name it is nobody's plugin, and nobody's mistake.
        .file("native.cwasm", native)
        .file("script.wasm", "#!/bin/sh\n")
        .file("source.wasm", "(component)")
        .file("spins.wasm", spins_in_describe.build())
        .file("starts.wasm", spins_at_start.build())
        .file("truncated.wasm", &whole[..whole.len() / 2])
        .start()
        .await;

    insta::with_settings!({ filters => [(r"at byte \d+ needs \d+", "at byte [N] needs [N]")] }, {
        insta::assert_snapshot!(refusals(&rig), @r##"
        aborts.wasm: failed to ask plugin `aborts` (`DIR/aborts.wasm`) for its tasks: `aborts` could not be asked for its tasks: the guest aborted (`unreachable` instruction)
          hint: `describe` must return at once and may not depend on anything outside
        core.wasm: failed to compile `DIR/core.wasm`: the file is a core WebAssembly module, not a component
          hint: build it with `rwork build`, or for the target wasm32-wasip2
        curious.wasm: failed to link plugin `curious` (`DIR/curious.wasm`): `curious` imports what this worker does not offer: wasi:keyvalue/store@0.2.0-draft
          hint: build it against this worker's `wit/` and WASI 0.2
        directory.wasm: expected `DIR/directory.wasm` to be a file, found a directory
          hint: rename `directory.wasm`: only components end in `.wasm` in a plugin directory
        empty.wasm: failed to compile `DIR/empty.wasm`: the file is empty
          hint: copy it again, to a temporary name beside it, then rename it
        foreign.wasm: failed to link plugin `foreign` (`DIR/foreign.wasm`): `foreign` is not a plugin of this worker: expected the export `rwork:task/handler@0.1.0`, found `hello`
          hint: build it with `rwork build`, or against `wit/` of rwork 0.1
        native.wasm: failed to compile `DIR/native.wasm`: the file is precompiled native code, not a component
          hint: put the `.wasm` that `rwork build` made there
        script.wasm: failed to compile `DIR/script.wasm`: the file is not WebAssembly: expected it to begin with `\0asm`, found `#!/bin/s`
          hint: put the `.wasm` that `rwork build` made there
        source.wasm: failed to compile `DIR/source.wasm`: the file is WebAssembly text, not a binary component
          hint: put the `.wasm` that `rwork build` made there
        spins.wasm: failed to ask plugin `spins` (`DIR/spins.wasm`) for its tasks: `spins` could not be asked for its tasks: it did not return within 250 ms, in `describe`
          hint: `describe` must return at once and may not depend on anything outside
        starts.wasm: failed to ask plugin `starts` (`DIR/starts.wasm`) for its tasks: `starts` could not be asked for its tasks: it did not return within 250 ms, in `init`
          hint: `describe` must return at once and may not depend on anything outside
        truncated.wasm: failed to compile `DIR/truncated.wasm`: the file is truncated: a section at byte [N] needs [N] more bytes than there are
          hint: copy it again, to a temporary name beside it, then rename it
        web.wasm: failed to link plugin `web` (`DIR/web.wasm`): `web` needs what it is not granted: `wasi:http/types@0.2.12` (grant `http`), `wasi:http/outgoing-handler@0.2.12` (grant `http`)
          hint: add to rwork.toml:
          [plugins.web.grants]
          http = ["https://api.example.com"] # the servers that it may reach
        "##);
    });

    let sum = rig.call("math.add", "[2, 2]", unlimited()).await;
    assert_eq!(text(&sum.result), "4");
    assert_eq!(text(&rig.call("fine.run", "[]", unlimited()).await.result), "null");
    let loaded: Vec<_> = rig.report().loaded.iter().map(|plugin| plugin.id.as_str().to_owned()).collect();
    assert_eq!(loaded, ["fine", "math"]);
    rig.until_idle().await;
    assert_eq!(rig.stop().await.succeeded, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_a_refused_plugin_is_an_unknown_task() {
    let rig = Setup::new(&["math", "web"]).start().await;
    let record = rig.call("web.fetch", "[\"http://127.0.0.1/\"]", unlimited()).await;
    let exception = record.exception().unwrap();
    assert_eq!(
        (exception.exc_type.as_str(), text(&exception.exc_message)),
        ("NotRegistered", "[\"web.fetch\"]")
    );
    rig.until_idle().await;
    let dead = rig.dead_letters().await;
    assert_eq!(dead.iter().map(|dead| dead.reason.kind.as_str()).collect::<Vec<_>>(), ["unknown-task"]);
    assert_eq!(rig.stop().await.refused, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_cut_off_anywhere_is_no_plugin_and_no_harm() {
    let whole = std::fs::read(guest("noop")).unwrap();
    let mut setup = Setup::new(&["math"]);
    let cuts: Vec<usize> = (1..=20).map(|n| whole.len() * n / 21).chain([1, 7, 8, whole.len() - 1]).collect();
    for cut in &cuts {
        setup = setup.file(&format!("cut-{cut}.wasm"), &whole[..*cut]);
    }
    let rig = setup.start().await;
    let refused = rig.refused();
    assert_eq!(refused.len(), cuts.len());
    for (name, error) in refused {
        // The header alone is a component, only one that exports nothing.
        let expected = if name == "cut-8.wasm" { "found no exports" } else { "the file is truncated" };
        assert!(error.chain().contains(expected), "{name}: {}", error.chain());
    }
    assert_eq!(text(&rig.call("math.add", "[2, 2]", unlimited()).await.result), "4");
    rig.stop().await;
}

/// Each file with its error and what to do about it; the directory of the rig is nobody's business.
fn refusals(rig: &Rig) -> String {
    let directory = rig.plugins_directory().display().to_string();
    let lines = rig.refused().into_iter().map(|(name, error)| {
        let hint =
            error.hint().map(|hint| format!("\n  hint: {}", hint.replace('\n', "\n  "))).unwrap_or_default();
        format!("{name}: {}{hint}\n", error.chain())
    });
    lines.collect::<String>().replace(&directory, "DIR")
}
