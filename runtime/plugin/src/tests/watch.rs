//! The watching loop, driven by real file events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::guest::Guest;
use super::{Place, freed, loaded, refused, run, unloaded, until};
use crate::Plugins;

/// The loop beside the test, ended at its end.
struct Watching {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn watch(plugins: &Plugins) -> Watching {
    let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let (plugins, token) = (plugins.clone(), shutdown.clone());
    tasks.spawn(async move { plugins.watch(token).await });
    Watching { shutdown, tasks }
}

impl Watching {
    async fn end(mut self) {
        self.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn files_that_come_change_and_go_are_followed() {
    let mut place = Place::new();
    // Only an event can lead to a look.
    place.config.rescan = Duration::from_secs(3_600);
    let (plugins, _) = place.open().await;
    let mut events = plugins.events();
    let watching = watch(&plugins);
    place.put("math.wasm", Guest::new("math.add", "1").build());
    let first = until(&mut events, loaded).await;
    place.put("math.wasm", Guest::new("math.add", "2").build());
    let second = until(&mut events, loaded).await;
    assert_eq!(until(&mut events, freed).await, first);
    let task = plugins.registry().lookup("math.add").unwrap();
    assert_eq!((run(&task).await.as_str(), &task.digest), ("2", &second));
    drop(task);
    place.put("math.wasm", "broken");
    assert!(until(&mut events, refused).await.contains("not WebAssembly"));
    std::fs::remove_file(place.path("math.wasm")).unwrap();
    assert_eq!(until(&mut events, unloaded).await, second);
    assert_eq!(until(&mut events, freed).await, second);
    watching.end().await;
    assert_eq!(plugins.registry().versions_alive(), 0);
}

#[tokio::test]
async fn a_new_folder_is_watched_too() {
    let mut place = Place::new();
    place.config.rescan = Duration::from_secs(3_600);
    let (plugins, _) = place.open().await;
    let mut events = plugins.events();
    let watching = watch(&plugins);
    place.write("math/plugin.toml", "name = \"sums\"");
    place.write("math/math.wasm", Guest::new("math.add", "1").build());
    until(&mut events, loaded).await;
    place.write("math/math.wasm", Guest::new("math.add", "2").build());
    until(&mut events, loaded).await;
    assert_eq!(plugins.registry().lookup("math.add").unwrap().plugin.as_str(), "sums");
    watching.end().await;
}

#[tokio::test]
async fn without_events_the_rescan_finds_changes() {
    let mut place = Place::new();
    place.config.rescan = Duration::from_millis(20);
    // What happens behind a link causes no event in the directory.
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("math.wasm");
    std::fs::write(&target, Guest::new("math.add", "1").build()).unwrap();
    std::os::unix::fs::symlink(&target, place.path("math.wasm")).unwrap();
    let (plugins, report) = place.open().await;
    assert_eq!(report.loaded.len(), 1);
    let mut events = plugins.events();
    let watching = watch(&plugins);
    std::fs::write(&target, Guest::new("math.add", "2").build()).unwrap();
    until(&mut events, loaded).await;
    watching.end().await;
}

/// P7 in small: work goes on without a gap while versions come, and broken ones don't.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_replacements_under_load_fail_no_task() {
    const REPLACEMENTS: usize = 50;
    let place = Place::new();
    place.write("math.wasm", Guest::new("math.add", "0").build());
    let (plugins, _) = place.open().await;
    let mut events = plugins.events();
    let watching = watch(&plugins);
    let (done, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (plugins, done, runs) = (plugins.clone(), done.clone(), runs.clone());
        load.spawn(async move {
            let mut newest = 0;
            while !done.load(Ordering::Acquire) {
                let task = plugins.registry().lookup("math.add").expect("never missing");
                let value: usize = run(&task).await.parse().unwrap();
                assert!(value >= newest, "{value} after {newest}");
                newest = value;
                runs.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    for n in 1..=REPLACEMENTS {
        if n % 5 == 0 {
            place.put("math.wasm", format!("broken {n}"));
            until(&mut events, refused).await;
        } else {
            place.put("math.wasm", Guest::new("math.add", &n.to_string()).build());
            until(&mut events, loaded).await;
        }
    }
    done.store(true, Ordering::Release);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    watching.end().await;
    assert!(runs.load(Ordering::Acquire) > REPLACEMENTS);
    let last = plugins.registry().lookup("math.add").unwrap();
    assert_eq!(run(&last).await, (REPLACEMENTS - 1).to_string());
    assert_eq!(plugins.registry().versions_alive(), 1);
}
