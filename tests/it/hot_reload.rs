//! P7 with a real worker: plugins are replaced, broken, renamed, deleted and slowly copied while it works, and no task
//! fails, is lost, or runs twice.
//!
//! Everything is paced by what the worker logs. `RWORK_CHAOS=full` for the long form.

mod files;
mod replacements;

use std::time::Instant;

use rwork_embedded::Embedded;
use rwork_plugin::{PATIENCE_DEFAULT, QUIET_DEFAULT};
use rwork_protocol::{Record, State, TaskId};
use rwork_tests::history::{History, Producer, Verdict, judge};
use rwork_tests::journal::{Entry, Journal, Reader, Said};
use rwork_tests::process::{Site, WorkerProcess, client, unless_it_hangs};

/// Steps that a task computes.
const SPINS: u64 = 2_000;
/// Tasks that show that everything goes on.
const SOME: u64 = 50;

/// One worker and one producer, and what is known of the plugin.
struct Stage {
    site: Site,
    journal: Journal,
    database: Embedded,
    worker: WorkerProcess,
    producer: Producer,
    /// Reads what the worker says of its plugins, in order.
    log: Reader,
    /// Digest of the version that serves.
    serving: String,
    gates: u64,
}

impl Stage {
    async fn open(journal: &Journal) -> anyhow::Result<Self> {
        let site = Site::new()?;
        let database = site.open()?;
        let worker = WorkerProcess::start(&site, "w@hot", &[], journal).await?;
        let producer = Producer::new(client(&database))?;
        let journal = journal.clone();
        let mut log = journal.reader();
        let serving = digest(&log.find(|entry| entry.says("plugin loaded")).await)?;
        Ok(Self { site, journal, database, worker, producer, log, serving, gates: 0 })
    }

    /// The next thing that the worker says of this kind.
    async fn said(&mut self, message: &str) -> Entry {
        self.log.find(|entry| entry.says(message)).await
    }

    /// Starts a task that goes on until [`Stage::let_go`], and returns when it runs.
    async fn hold(&mut self) -> anyhow::Result<Held> {
        self.gates += 1;
        let gate = format!("gate-{}", self.gates);
        let mut log = self.journal.reader_from_now();
        let id = self.producer.send_held(&gate).await?;
        log.find(|entry| entry.says("task started") && entry.field("task_id") == Some(id.as_str())).await;
        Ok(Held { id, gate })
    }

    /// Lets a held task end, and returns its record.
    async fn let_go(&self, held: Held) -> anyhow::Result<Record> {
        std::fs::write(self.site.history().join(&held.gate), "")?;
        Ok(self.producer.client().wait(&held.id, None).await?)
    }

    /// Sends some tasks and returns their records when all have ended.
    async fn run(&mut self, count: u64) -> anyhow::Result<Vec<Record>> {
        let ids = self.producer.send(count, SPINS).await?;
        let mut records = Vec::new();
        for id in &ids {
            records.push(self.producer.client().wait(id, None).await?);
        }
        Ok(records)
    }

    /// Ends the worker and judges everything that it did. Nothing but refusals may be wrong in its log.
    async fn close(self) -> anyhow::Result<(History, Verdict)> {
        for id in self.producer.accepted.values() {
            self.producer.client().wait(id, None).await?;
        }
        let status = self.worker.terminate().await?;
        anyhow::ensure!(status.success(), "the worker left with {status}");
        for entry in self.journal.so_far() {
            let wrong = match &entry.said {
                Said::Event(_) => entry.field("level") == Some("ERROR") && !is_refusal(&entry),
                Said::Noise(_) => true,
                Said::End => false,
            };
            anyhow::ensure!(!wrong, "the worker said {:?}", entry.said);
        }
        let log = self.site.history_log();
        let history =
            History::gather(self.producer, &log, Vec::new(), &self.journal, &self.database, &self.database)
                .await?;
        let verdict = judge(&history);
        Ok((history, verdict))
    }
}

/// A task that was held back.
struct Held {
    id: TaskId,
    gate: String,
}

/// A refused plugin, or a message for a task that is no more.
fn is_refusal(entry: &Entry) -> bool {
    entry.says("plugin refused")
        || entry.field("message").is_some_and(|message| message.starts_with("message refused"))
}

fn digest(entry: &Entry) -> anyhow::Result<String> {
    entry
        .field("digest")
        .map(ToOwned::to_owned)
        .ok_or_else(|| anyhow::anyhow!("no digest in {:?}", entry.said))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_reload_a_renamed_plugin_takes_its_tasks_along() -> anyhow::Result<()> {
    let journal = Journal::default();
    unless_it_hangs(&journal, async {
        let mut stage = Stage::open(&journal).await?;
        let held = stage.hold().await?;
        stage.producer.send(SOME, SPINS).await?;
        std::fs::rename(stage.site.plugin(), stage.site.plugins().join("renamed.wasm"))?;
        let loaded = stage.said("plugin loaded").await;
        assert_eq!(loaded.field("plugin"), Some("renamed"));
        assert_eq!(digest(&loaded)?, stage.serving);
        stage.run(SOME).await?;
        assert_eq!(stage.let_go(held).await?.status, State::Success);
        assert!(journal.so_far().iter().any(|entry| entry.says("plugin unloaded, its file is gone")));
        stage.close().await?.1.clean()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_reload_a_deleted_plugin_drains() -> anyhow::Result<()> {
    let journal = Journal::default();
    unless_it_hangs(&journal, async {
        let mut stage = Stage::open(&journal).await?;
        let held = stage.hold().await?;
        stage.run(SOME).await?;
        std::fs::remove_file(stage.site.plugin())?;
        stage.said("plugin unloaded, its file is gone").await;

        let unknown = stage.run(1).await?;
        assert_eq!(unknown[0].status, State::Failure);
        assert_eq!(unknown[0].exception().unwrap().exc_type, "NotRegistered");
        assert!(
            !journal.so_far().iter().any(|entry| entry.says("plugin version freed")),
            "its last task still runs"
        );
        let ended = stage.let_go(held).await?;
        assert_eq!((ended.status, ended.component), (State::Success, Some(stage.serving.clone())));
        let freed = stage.said("plugin version freed").await;
        assert_eq!(digest(&freed)?, stage.serving);

        let (history, verdict) = stage.close().await?;
        assert_eq!(verdict.faults.len(), 1, "only the one that came too late: {:?}", verdict.faults);
        assert!(history.dead.values().all(|reason| reason.starts_with("unknown-task")), "{:?}", history.dead);
        assert_eq!(history.dead.len(), 1);
        Ok(())
    })
    .await
}

/// A copy that pauses for longer than a file has to be quiet, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_reload_a_half_copied_file_is_not_a_broken_plugin() -> anyhow::Result<()> {
    const PARTS: usize = 5;
    let journal = Journal::default();
    unless_it_hangs(&journal, async {
        let mut stage = Stage::open(&journal).await?;
        let first = files::guest_bytes()?;
        for attempt in 0.. {
            let bytes = files::version(&first, attempt);
            // In place, as `cp` does it.
            let mut file = std::fs::File::create(stage.site.plugin())?;
            let mut longest = std::time::Duration::ZERO;
            for part in bytes.chunks(bytes.len().div_ceil(PARTS)) {
                let written = Instant::now();
                std::io::Write::write_all(&mut file, part)?;
                while written.elapsed() < QUIET_DEFAULT * 2 {
                    assert_eq!(stage.run(1).await?[0].component.as_deref(), Some(stage.serving.as_str()));
                }
                longest = longest.max(written.elapsed());
            }
            drop(file);
            let (mut after, told) = (stage.log.clone(), ["plugin reloaded", "plugin refused"]);
            let first_word = after.find(|entry| told.iter().any(|word| entry.says(word))).await;
            if first_word.says("plugin reloaded") {
                stage.log = after;
                stage.serving = digest(&first_word)?;
                break;
            }
            // On a machine this busy the copy did stall for as long as a broken one may: it says nothing.
            assert!(longest > PATIENCE_DEFAULT / 2, "a copy that went on was refused: {:?}", first_word.said);
            stage.said("plugin reloaded").await;
        }
        let records = stage.run(SOME).await?;
        assert!(records.iter().all(|record| record.component.as_deref() == Some(stage.serving.as_str())));
        stage.close().await?.1.clean()
    })
    .await
}
