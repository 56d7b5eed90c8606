//! What is loaded at the start, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rwork_sandbox::{Grants, TaskPattern};

use super::guest::{Guest, core_module, foreign};
use super::{Place, file_names, run, sandbox};
use crate::{Ceilings, Deployment, MaxRetries, PluginId, Plugins, Seconds, TaskOptions, WorkerDefaults};

#[tokio::test]
async fn every_plugin_is_loaded_and_its_tasks_run() {
    let place = Place::new();
    place.write("math.wasm", Guest::new("math.add", "4").task("math.mul", r#"{"max_retries":null}"#).build());
    place.write("text/text.wasm", Guest::new("text.count", "7").build());
    place.write(
        "text/plugin.toml",
        "name = \"words\"\ndescription = \"counts\"\n[requests]\ndirs = [\"/data\"]\n",
    );
    let (plugins, report) = place.open().await;
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    let ids: Vec<_> = report.loaded.iter().map(|plugin| plugin.id.to_string()).collect();
    assert_eq!(ids, ["math", "words"]);
    let registry = plugins.registry();
    assert_eq!(registry.snapshot().tasks().count(), 3);
    assert_eq!(registry.versions_alive(), 2);
    assert!(registry.lookup("math.div").is_none());
    let add = registry.lookup("math.add").unwrap();
    assert_eq!((add.plugin.as_str(), add.summary.as_str()), ("math", "What it does."));
    assert!(add.digest.starts_with("sha256:") && add.digest.len() == 71);
    assert_eq!(run(&add).await, "4");
    assert_eq!(run(&registry.lookup("text.count").unwrap()).await, "7");
    assert_eq!(registry.lookup("math.mul").unwrap().options.max_retries, MaxRetries::Unlimited);
    let words = &report.loaded[1];
    assert_eq!((words.description.as_deref(), words.sdk.as_str()), (Some("counts"), "wat/1"));
    assert_eq!(words.requests.as_ref().unwrap().dirs.as_ref().unwrap().0, ["/data"]);
}

/// Each file with a part of the error that it must lead to.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = Guest::new("a.b", "1").build();
    vec![
        ("empty.wasm", Vec::new(), "failed to compile `{}`: the file is empty"),
        (
            "text.wasm",
            b"hello there".to_vec(),
            "the file is not WebAssembly: expected it to begin with `\\0asm`",
        ),
        ("cut.wasm", whole[..whole.len() / 2].to_vec(), "the file is truncated"),
        ("module.wasm", core_module(), "the file is a core WebAssembly module, not a component"),
        ("world.wasm", foreign(), "`world` is not a plugin of this worker"),
        (
            "grant.wasm",
            Guest::new("g.x", "1").submits().build(),
            "`grant` needs what it is not granted: `rwork:task/submit@0.1.0`",
        ),
        (
            "trap.wasm",
            Guest::new("t.x", "1").describe("unreachable").build(),
            "`trap` could not be asked for its tasks",
        ),
        (
            "none.wasm",
            Guest::new("n.x", "1").without_tasks().build(),
            "expected `{}` to declare 1 to 1000 tasks, found 0",
        ),
        ("twice.wasm", Guest::new("w.x", "1").task("w.x", "").build(), "`{}` declares task `w.x` twice"),
        (
            "name.wasm",
            Guest::new("", "1").build(),
            "`{}` declares a task by a name that can't be used: expected a task name to be non-empty",
        ),
        (
            "option.wasm",
            Guest::new("o.x", "1").task("o.y", r#"{"time_limits":1}"#).build(),
            "`{}` declares task `o.y` with options that can't be used: unknown key `time_limits` in task options; \
             did you mean `time_limit`?",
        ),
        (
            "whole.wasm",
            Guest::new("p.x", "1").options("[]").build(),
            "`{}` declares itself with options that can't be used",
        ),
        (
            "small.wasm",
            Guest::new("s.x", "1").task("s.y", r#"{"memory":"64KiB"}"#).build(),
            "expected `memory` of task `s.y` to be at least 128 KiB",
        ),
        (
            "hook.wasm",
            Guest::new("h.x", "1").task("h.y", r#"{"cleanup":true}"#).build(),
            "task `h.y` sets `cleanup`, but `{}` exports no cleanup hook",
        ),
        (
            "Upper.wasm",
            Guest::new("u.x", "1").build(),
            "`{}` gives no usable plugin name: expected a plugin name of 1 to 64",
        ),
        (
            "z-same.wasm",
            Guest::new("good.task", "1").build(),
            "task `good.task` is in two plugins: `z-same` (`{}`) and `good`",
        ),
    ]
}

#[tokio::test]
async fn what_is_broken_is_refused_clearly_and_hinders_nobody() {
    let place = Place::new();
    place.write("good.wasm", Guest::new("good.task", "1").build());
    for (name, bytes, _) in broken() {
        place.write(name, bytes);
    }
    std::fs::create_dir(place.path("x.wasm")).unwrap();
    let (plugins, report) = place.open().await;
    assert_eq!(file_names(report.loaded.iter().map(|plugin| &plugin.path)), ["good.wasm"]);
    assert_eq!(run(&plugins.registry().lookup("good.task").unwrap()).await, "1");
    let mut problems: BTreeMap<_, _> = report.refused.into_iter().collect();
    for (name, _, expected) in broken() {
        let path = place.path(name);
        let problem = problems.remove(&path).unwrap_or_else(|| panic!("{name} was not refused")).chain();
        let expected = expected.replace("{}", &path.display().to_string());
        assert!(problem.contains(&expected), "{name}: {problem}\nexpected: {expected}");
    }
    assert_eq!(file_names(problems.keys()), ["x.wasm"]);
    assert_eq!(plugins.registry().versions_alive(), 1);
}

#[tokio::test]
async fn a_refused_plugin_says_what_to_do() {
    let place = Place::new();
    place.write("web.wasm", Guest::new("web.x", "1").submits().build());
    let (_, report) = place.open().await;
    let hint = report.refused[0].1.hint().unwrap();
    assert!(hint.contains("[plugins.web.grants]\nsubmit = "), "{hint}");
}

#[tokio::test]
async fn a_grant_of_the_operator_lets_it_in() {
    let mut place = Place::new();
    place.write("web.wasm", Guest::new("web.x", "1").submits().build());
    let grants = Grants { submit: vec![TaskPattern::new("web.*").unwrap()], ..Grants::default() };
    place.deployment(Deployment {
        grants: [(PluginId::new("web").unwrap(), Arc::new(grants))].into(),
        ..Deployment::default()
    });
    let (plugins, report) = place.open().await;
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    assert_eq!(run(&plugins.registry().lookup("web.x").unwrap()).await, "1");
}

#[tokio::test]
async fn options_of_all_layers_meet_in_the_task() {
    let mut place = Place::new();
    let guest = Guest::new("a.low", "1")
        .task("a.own", r#"{"time_limit":30,"priority":3}"#)
        .options(r#"{"time_limit":40,"soft_time_limit":20}"#);
    place.write("a.wasm", guest.build());
    place.write("a.toml", "[limits]\nmemory = \"1MiB\"\n[tasks.\"a.own\"]\npriority = 2\n");
    let seconds = |seconds| Some(Seconds(Duration::from_secs(seconds)));
    place.deployment(Deployment {
        tasks: [("a.own".to_owned(), TaskOptions { track_started: Some(true), ..TaskOptions::default() })]
            .into(),
        defaults: WorkerDefaults {
            options: TaskOptions { time_limit: seconds(50), expires: seconds(60), ..TaskOptions::default() },
            ceilings: Ceilings { max_soft_time_limit: seconds(10), ..Ceilings::default() },
        },
        ..Deployment::default()
    });
    let (plugins, report) = place.open().await;
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    let own = plugins.registry().lookup("a.own").unwrap().options.clone();
    let low = plugins.registry().lookup("a.low").unwrap().options.clone();
    let duration = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!((own.time_limit, low.time_limit), (duration(30), duration(40)));
    assert_eq!((own.soft_time_limit, low.expires), (duration(10), duration(60)));
    assert_eq!((own.priority, low.priority), (Some(2), None));
    assert_eq!((own.memory_bytes_max, own.track_started, low.track_started), (1 << 20, true, false));
}

#[tokio::test]
async fn compiled_code_is_kept_and_damage_is_noticed() {
    let place = Place::new();
    place.write("math.wasm", Guest::new("math.add", "4").build());
    let from_cache = async || {
        let (plugins, report) = place.open().await;
        assert_eq!(run(&plugins.registry().lookup("math.add").unwrap()).await, "4");
        report.loaded[0].from_cache
    };
    assert!(!from_cache().await);
    assert!(from_cache().await);
    let code =
        std::fs::read_dir(place.root.path().join("cache/code")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&code).unwrap();
    std::fs::remove_file(&code).unwrap();
    std::fs::write(&code, &whole[..whole.len() / 2]).unwrap();
    assert!(!from_cache().await);
    assert!(from_cache().await);
}

#[tokio::test]
async fn code_that_the_engine_refuses_is_compiled_again() {
    let place = Place::new();
    let bytes = Guest::new("math.add", "4").build();
    place.write("math.wasm", &bytes);
    let (_, report) = place.open().await;
    let cache = crate::cache::Cache::open(&place.config.cache_directory).unwrap();
    let key = crate::cache::Key::new(&report.loaded[0].digest, sandbox().compatibility_hash());
    std::fs::remove_file(cache.find(&key).unwrap()).unwrap();
    // The right name and checksum, but not this engine's work.
    cache.store(&key, b"\x7fELF of another engine").unwrap();
    let (plugins, report) = place.open().await;
    assert!(!report.loaded[0].from_cache);
    assert_eq!(run(&plugins.registry().lookup("math.add").unwrap()).await, "4");
    assert!(place.open().await.1.loaded[0].from_cache);
}

#[tokio::test]
async fn two_workers_may_start_on_an_empty_cache() {
    let place = Place::new();
    for n in 0..4 {
        place.write(&format!("p{n}.wasm"), Guest::new(&format!("p{n}.x"), "1").build());
    }
    let ((one, first), (two, second)) = tokio::join!(place.open(), place.open());
    assert_eq!((first.loaded.len(), second.loaded.len()), (4, 4));
    assert_eq!((one.registry().versions_alive(), two.registry().versions_alive()), (4, 4));
}

#[tokio::test]
async fn one_file_is_checked_without_serving_it() {
    let place = Place::new();
    place.write("math.wasm", Guest::new("math.add", "4").build());
    place.write("bad.wasm", "x");
    let check = async |name: &str| Plugins::check(&place.config, sandbox(), &place.path(name)).await;
    assert_eq!(check("math.wasm").await.unwrap().tasks[0].name.as_str(), "math.add");
    assert!(check("bad.wasm").await.unwrap_err().chain().contains("not WebAssembly"));
    assert!(check("none.wasm").await.unwrap_err().to_string().contains("can't be read"));
    let directory = check("").await.unwrap_err().to_string();
    assert!(directory.ends_with("to be a file, found a directory"), "{directory}");
}

#[tokio::test]
async fn a_directory_that_is_not_there_ends_the_start() {
    let mut place = Place::new();
    place.config.directory = place.path("missing");
    let error = Plugins::open(place.config.clone(), sandbox()).await.unwrap_err();
    assert!(error.to_string().starts_with("failed to read the plugin directory"), "{error}");
    assert!(error.hint().unwrap().contains("--plugins"));
}
