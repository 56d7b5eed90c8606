//! Replacement after replacement under load, every fifth with a broken file.
//!
//! One round: a task is held on the version that serves, others follow it; a file is installed; when the worker has said
//! what became of it, more tasks are sent, and the held one is let go. So each version is seen to serve, and each old one
//! to serve on, whatever the machine's speed.

use std::collections::BTreeSet;

use rwork_protocol::{Record, State};
use rwork_tests::journal::Journal;
use rwork_tests::process::{is_full_run, say, seed, unless_it_hangs};

use super::{SPINS, Stage, digest, files};

/// How much of it.
struct Scale {
    rounds: usize,
    tasks_per_round: u64,
}

const SHORT: Scale = Scale { rounds: 10, tasks_per_round: 200 };
const FULL: Scale = Scale { rounds: 50, tasks_per_round: 400 };
/// Of so many files one is broken.
const BROKEN_EVERY: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_reload_replacements_under_load_fail_no_task() -> anyhow::Result<()> {
    let scale = if is_full_run() { FULL } else { SHORT };
    let journal = Journal::default();
    let seed = seed()?;
    say(format_args!("hot reload: {} replacements, RWORK_SEED={seed}", scale.rounds));
    unless_it_hangs(&journal, run(&scale, seed, &journal)).await
}

async fn run(scale: &Scale, seed: u64, journal: &Journal) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    let mut rng = fastrand::Rng::with_seed(seed);
    let component = files::guest_bytes()?;
    let mut stage = Stage::open(journal).await?;
    let mut replaced = BTreeSet::new();
    for round in 1..=scale.rounds {
        // The held one and those behind it come before the file, a quarter after it.
        let after = scale.tasks_per_round / 4;
        let held = stage.hold().await?;
        stage.producer.send(scale.tasks_per_round - after - 1, SPINS).await?;
        let old = stage.serving.clone();
        if round % BROKEN_EVERY == 0 {
            let (bytes, reason) = files::broken(&component, round / BROKEN_EVERY, &mut rng);
            replace_with_broken(&mut stage, &bytes, reason).await?;
        } else {
            replace_with(&mut stage, &files::version(&component, round as u64)).await?;
            replaced.insert(old.clone());
        }
        let records = stage.run(after).await?;
        anyhow::ensure!(
            records.iter().all(|record| ran_on(record, &stage.serving)),
            "round {round}: the new one serves"
        );
        let record = stage.let_go(held).await?;
        anyhow::ensure!(ran_on(&record, &old), "round {round}: what had begun ends on its version");
    }
    wait_for_freed(journal, &replaced).await?;
    finish(stage, scale, &replaced, began).await
}

/// A good version goes live.
async fn replace_with(stage: &mut Stage, bytes: &[u8]) -> anyhow::Result<()> {
    files::install(&stage.site.plugin(), bytes)?;
    let reloaded = stage.said("plugin reloaded").await;
    anyhow::ensure!(reloaded.field("old") == Some(stage.serving.as_str()), "{:?}", reloaded.said);
    stage.serving = digest(&reloaded)?;
    Ok(())
}

/// A broken one is refused with its reason, and what served serves on.
async fn replace_with_broken(stage: &mut Stage, bytes: &[u8], reason: &str) -> anyhow::Result<()> {
    files::install(&stage.site.plugin(), bytes)?;
    let refused = stage.said("plugin refused").await;
    let said = refused.field("error").unwrap_or_default();
    anyhow::ensure!(said.contains(reason), "expected `{reason}` in `{said}`");
    anyhow::ensure!(refused.field("serving") == Some(stage.serving.as_str()), "{:?}", refused.said);
    Ok(())
}

fn ran_on(record: &Record, digest: &str) -> bool {
    record.status == State::Success && record.component.as_deref() == Some(digest)
}

/// Every version that was replaced is freed, and the one that serves is not.
async fn wait_for_freed(journal: &Journal, replaced: &BTreeSet<String>) -> anyhow::Result<()> {
    let mut log = journal.reader();
    let mut freed = BTreeSet::new();
    while freed.len() < replaced.len() {
        let digest = digest(&log.find(|entry| entry.says("plugin version freed")).await)?;
        anyhow::ensure!(replaced.contains(&digest), "`{digest}` was freed while it served");
        anyhow::ensure!(freed.insert(digest.clone()), "`{digest}` was freed twice");
    }
    Ok(())
}

async fn finish(
    stage: Stage,
    scale: &Scale,
    replaced: &BTreeSet<String>,
    began: std::time::Instant,
) -> anyhow::Result<()> {
    let refused = stage.journal.so_far().iter().filter(|entry| entry.says("plugin refused")).count();
    let broken = scale.rounds / BROKEN_EVERY;
    let (history, verdict) = stage.close().await?;
    let served: BTreeSet<_> =
        history.records.values().filter_map(|record| record.component.clone()).collect();
    say(format_args!(
        "hot reload: {} replacements, {refused} refused, {} versions served, {} freed, in {:.1} s\n{verdict}",
        scale.rounds,
        served.len(),
        replaced.len(),
        began.elapsed().as_secs_f64()
    ));
    verdict.clean()?;
    let tasks = scale.rounds as u64 * scale.tasks_per_round;
    anyhow::ensure!(
        verdict.accepted as u64 == tasks,
        "expected {tasks} tasks, {} were accepted",
        verdict.accepted
    );
    anyhow::ensure!(verdict.ran_again == 0, "{} tasks ran twice", verdict.ran_again);
    anyhow::ensure!(refused == broken, "expected {broken} refusals, one for each broken file, got {refused}");
    anyhow::ensure!(served.len() == replaced.len() + 1, "every version that went live has results");
    Ok(())
}
