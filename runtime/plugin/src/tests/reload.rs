//! What a second look does: by calling it, on a clock that stands still.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use super::guest::Guest;
use super::{Place, run, words};
use crate::{Plugins, ReloadEvent};

const QUIET: Duration = Duration::from_millis(100);
/// Longer than any test may take, since the age of a file is measured by the system's clock.
const PATIENCE: Duration = Duration::from_secs(3_600);

struct Stage {
    place: Place,
    plugins: Plugins,
    events: broadcast::Receiver<ReloadEvent>,
}

impl Stage {
    async fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let mut place = Place::new();
        (place.config.quiet, place.config.patience) = (QUIET, PATIENCE);
        for (name, bytes) in files {
            place.write(name, bytes);
        }
        let (plugins, _) = place.open().await;
        let events = plugins.events();
        Self { place, plugins, events }
    }

    /// Writes in place, with a time that no clock has reached: only watching it can tell that it is quiet.
    fn write(&self, name: &str, bytes: &[u8]) {
        self.place.write(name, bytes);
        let future = SystemTime::now() + PATIENCE * 2;
        File::options().write(true).open(self.place.path(name)).unwrap().set_modified(future).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.place.path(name)).unwrap();
    }

    /// Looks, waits for as long as a change has to be quiet, and looks again; returns what happened.
    async fn after(&mut self, wait: Duration) -> Vec<&'static str> {
        self.plugins.rescan().await;
        tokio::time::advance(wait).await;
        self.plugins.rescan().await;
        words(&mut self.events)
    }

    async fn value(&self, task: &str) -> Option<String> {
        match self.plugins.registry().lookup(task) {
            Some(task) => Some(run(&task).await),
            None => None,
        }
    }

    fn degraded(&self) -> Vec<bool> {
        self.plugins.registry().snapshot().plugins.iter().map(|status| status.is_degraded()).collect()
    }
}

fn add(value: &str) -> Vec<u8> {
    Guest::new("math.add", value).build()
}

#[tokio::test(start_paused = true)]
async fn in_flight_work_ends_on_the_version_that_it_began_with() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    let old = stage.plugins.registry().lookup("math.add").unwrap();
    stage.write("math.wasm", &add("2"));
    assert_eq!(stage.after(QUIET).await, ["loaded"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "2");
    assert_eq!(run(&old).await, "1");
    assert_eq!(stage.plugins.registry().versions_alive(), 2);
    let digest = old.digest.clone();
    drop(old);
    let freed = stage.events.try_recv().unwrap();
    assert!(matches!(&freed, ReloadEvent::Freed { digest: freed, .. } if *freed == digest), "{freed:?}");
    assert_eq!(stage.plugins.registry().versions_alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_version_changes_nothing_and_is_told_once() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    stage.write("math.wasm", b"not a component");
    assert_eq!(stage.after(QUIET).await, ["refused"]);
    assert_eq!(stage.degraded(), [true]);
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
    assert!(stage.after(PATIENCE).await.is_empty());
    stage.write("math.wasm", &add("1"));
    assert_eq!(stage.after(QUIET).await, ["unchanged"]);
    assert_eq!(stage.degraded(), [false]);
    stage.write("math.wasm", &add("2"));
    assert_eq!(stage.after(QUIET).await, ["loaded", "freed"]);
}

#[tokio::test(start_paused = true)]
async fn more_than_is_granted_is_refused_and_the_old_version_serves_on() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    stage.write("math.wasm", &Guest::new("math.add", "2").submits().build());
    assert_eq!(stage.after(QUIET).await, ["refused"]);
    assert_eq!((stage.value("math.add").await.unwrap().as_str(), stage.degraded()), ("1", vec![true]));
}

#[tokio::test(start_paused = true)]
async fn a_half_copied_file_is_not_a_broken_plugin() {
    let mut stage = Stage::with(&[]).await;
    let whole = add("1");
    for part in 1..10 {
        stage.write("math.wasm", &whole[..whole.len() * part / 10]);
        // Not quiet yet, then quiet but cut off: neither is worth a word.
        assert!(stage.after(QUIET / 2).await.is_empty());
        assert!(stage.after(QUIET).await.is_empty());
        assert!(stage.plugins.registry().snapshot().plugins.iter().all(|status| status.problem.is_none()));
    }
    stage.write("math.wasm", &whole);
    assert_eq!(stage.after(QUIET).await, ["loaded"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_never_finished_is_told_in_the_end() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    let whole = add("2");
    stage.write("math.wasm", &whole[..whole.len() / 2]);
    assert!(stage.after(QUIET).await.is_empty());
    assert_eq!(stage.after(PATIENCE).await, ["refused"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_plugin_drains_and_is_unloaded() {
    let mut stage =
        Stage::with(&[("math.wasm", add("1")), ("text.wasm", Guest::new("text.x", "9").build())]).await;
    let held = stage.plugins.registry().lookup("math.add").unwrap();
    stage.remove("math.wasm");
    assert!(stage.after(QUIET).await.is_empty());
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
    assert_eq!(stage.after(PATIENCE).await, ["unloaded"]);
    assert!(stage.plugins.registry().lookup("math.add").is_none());
    assert_eq!(run(&held).await, "1");
    drop(held);
    assert_eq!(words(&mut stage.events), ["freed"]);
    assert_eq!(stage.value("text.x").await.unwrap(), "9");
    assert_eq!(stage.plugins.registry().versions_alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_replaced_by_delete_and_copy_is_never_missing() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    stage.remove("math.wasm");
    assert!(stage.after(QUIET).await.is_empty());
    stage.write("math.wasm", &add("2"));
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
    assert_eq!(stage.after(QUIET).await, ["loaded", "freed"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "2");
    assert!(stage.after(PATIENCE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_renamed_file_takes_its_names_along() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    fs::rename(stage.place.path("math.wasm"), stage.place.path("sums.wasm")).unwrap();
    assert_eq!(stage.after(QUIET).await, ["unloaded", "loaded", "freed"]);
    assert_eq!(stage.plugins.registry().lookup("math.add").unwrap().plugin.as_str(), "sums");
    assert_eq!(stage.plugins.registry().snapshot().plugins.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_becomes_free_goes_to_who_waited_for_it() {
    let mut stage = Stage::with(&[("a.wasm", add("1"))]).await;
    stage.write("b.wasm", &add("2"));
    assert_eq!(stage.after(QUIET).await, ["refused"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
    stage.remove("a.wasm");
    stage.plugins.rescan().await;
    tokio::time::advance(PATIENCE).await;
    stage.plugins.rescan().await;
    assert_eq!(words(&mut stage.events), ["unloaded", "freed", "loaded"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_task_may_move_between_plugins_that_change_together() {
    let a = |task: &str| Guest::new("a.x", "a").task(task, "").build();
    let b = |value: &str| Guest::new("b.x", value).build();
    let mut stage = Stage::with(&[("a.wasm", a("moving")), ("b.wasm", b("b"))]).await;
    assert_eq!(stage.value("moving").await.unwrap(), "a");
    stage.write("a.wasm", &a("a.y"));
    stage.write("b.wasm", &Guest::new("b.x", "b").task("moving", "").build());
    assert_eq!(stage.after(QUIET).await, ["loaded", "loaded", "freed", "freed"]);
    assert_eq!(stage.value("moving").await.unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_changed_manifest_is_a_new_version() {
    let mut stage =
        Stage::with(&[("math.wasm", add("1")), ("math.toml", b"[limits]\ntime_limit = 5\n".to_vec())]).await;
    let limit = |stage: &Stage| stage.plugins.registry().lookup("math.add").unwrap().options.time_limit;
    assert_eq!(limit(&stage), Some(Duration::from_secs(5)));
    stage.write("math.toml", b"[limits]\ntime_limit = 6\n");
    assert_eq!(stage.after(QUIET).await, ["loaded", "freed"]);
    assert_eq!(limit(&stage), Some(Duration::from_secs(6)));
    stage.write("math.toml", b"[limits]\ntime = 6\n");
    assert_eq!(stage.after(QUIET).await, ["refused"]);
    assert_eq!(limit(&stage), Some(Duration::from_secs(6)));
    stage.remove("math.toml");
    assert_eq!(stage.after(QUIET).await, ["loaded", "freed"]);
    assert_eq!(limit(&stage), Some(Duration::from_secs(1_800)));
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_the_way_may_come_and_go() {
    let mut stage = Stage::with(&[("sub/math.wasm", add("1")), ("sub/math.toml", Vec::new())]).await;
    stage.place.write("sub/plugin.toml", "");
    assert_eq!(stage.after(QUIET).await, ["refused"]);
    assert_eq!((stage.degraded(), stage.value("math.add").await.unwrap().as_str()), (vec![true], "1"));
    stage.remove("sub/plugin.toml");
    assert_eq!(stage.after(QUIET).await, ["unchanged"]);
    assert_eq!(stage.degraded(), [false]);
    fs::create_dir(stage.place.path("x.wasm")).unwrap();
    assert_eq!(stage.after(QUIET).await, ["refused"]);
    fs::remove_dir(stage.place.path("x.wasm")).unwrap();
    assert!(stage.after(PATIENCE).await.is_empty());
    assert_eq!(stage.degraded(), [false]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_vanishes_unloads_nothing() {
    let mut stage = Stage::with(&[("math.wasm", add("1"))]).await;
    let (here, aside) = (stage.place.config.directory.clone(), stage.place.root.path().join("aside"));
    fs::rename(&here, &aside).unwrap();
    assert_eq!(stage.after(PATIENCE * 2).await, ["refused"]);
    assert_eq!(stage.value("math.add").await.unwrap(), "1");
    fs::rename(&aside, &here).unwrap();
    assert!(stage.after(PATIENCE).await.is_empty());
}
