//! A disk that fills up: the producer is told clearly, nothing that was accepted is lost, the workers drain, and when
//! there is room again all goes on.
//!
//! The disk is a small tmpfs in a mount namespace of its own, in which the test runs itself again: it vanishes with the
//! process, however that ends, and needs no rights where user namespaces are allowed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use rwork_client::Error;
use rwork_protocol::TaskId;
use rwork_tests::binary::{rwork, rwork_in};
use rwork_tests::guests::guest;
use rwork_tests::history::{History, Producer, judge};
use rwork_tests::journal::Journal;
use rwork_tests::process::{Site, WorkerProcess, client, say, unless_it_hangs};

/// Set for the run inside the namespace.
const INSIDE: &str = "RWORK_TESTS_OWN_MOUNTS";
/// This test's name, for the run inside.
const NAME: &str = "disk_full::disk_full_refuses_producers_and_lets_workers_drain";
/// A third of it is the broker's own reserve.
const DISK: &str = "size=24m";
/// Bytes of a message beside what it needs.
const PADDING: usize = 4_000;
/// Messages in one send, until the disk is nearly full.
const BATCH: u64 = 20;
const SPINS: u64 = 1_000;
/// Numbers of the tasks that are sent from the command line.
const CALLS: std::ops::Range<u64> = 1_000_000..1_000_050;

#[test]
fn disk_full_refuses_producers_and_lets_workers_drain() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return run_inside();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let journal = Journal::default();
    runtime.block_on(unless_it_hangs(&journal, run(&journal)))
}

/// Runs this test again where it may mount.
fn run_inside() -> anyhow::Result<()> {
    let probe = tempfile::tempdir()?;
    let Some(namespace) =
        [&["--mount"] as &[&str], &["--user", "--map-root-user", "--mount"]].into_iter().find(|namespace| {
            unshare(namespace)
                .args(["mount", "-t", "tmpfs", "-o", DISK, "none"])
                .arg(probe.path())
                .output()
                .is_ok_and(|probe| probe.status.success())
        })
    else {
        say("disk full: SKIPPED, this system lets nobody but root mount a small disk");
        return Ok(());
    };
    // Built out here, so that the run inside finds them.
    rwork();
    guest("history");
    let mut inside = unshare(namespace);
    inside.arg(std::env::current_exe()?).args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1");
    let ended = inside.output()?;
    anyhow::ensure!(ended.status.success(), "{}", both_streams(&ended));
    let shown = String::from_utf8_lossy(&ended.stderr);
    anyhow::ensure!(shown.contains("disk full:"), "it did not run inside:\n{}", both_streams(&ended));
    say(shown.trim_end());
    Ok(())
}

fn unshare(namespace: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespace);
    command
}

fn both_streams(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn run(journal: &Journal) -> anyhow::Result<()> {
    let disk = tempfile::tempdir()?;
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(disk.path()).status()?;
    anyhow::ensure!(mounted.success(), "the small disk can't be mounted");
    let site = Site::with_database(disk.path().join("rwork.db"))?;
    let database = site.open()?;
    let mut producer = Producer::new(client(&database))?.with_padding(PADDING);
    // A worker that can do but one task is busy with that one while the disk fills up.
    let first =
        WorkerProcess::start(&site, "first@full", &["-c", "1", "--max-in-flight", "1"], journal).await?;

    // The producer fills it, and is refused while the workers can still work.
    hold(&mut producer, "gate-1", journal).await?;
    fill_for_a_person(&site, &mut producer).await?;
    let filled = producer.accepted.len();
    // One that starts on the full disk drains it too.
    let second =
        WorkerProcess::start(&site, "second@full", &["-c", "1", "--max-in-flight", "1"], journal).await?;
    let_go(&site, "gate-1")?;
    drained(&producer).await?;
    send_until_accepted(&mut producer).await?;
    drained(&producer).await?;

    // Somebody else takes the very last byte: now the workers live on the broker's reserve.
    leave(second).await?;
    hold(&mut producer, "gate-2", journal).await?;
    fill(&mut producer).await?;
    let other = disk.path().join("somebody-else");
    take_the_rest(&other)?;
    let_go(&site, "gate-2")?;
    drained(&producer).await?;
    // Room again. Whether the reserve had to be given up depends on how much of the log could be written over.
    let mut log = journal.reader();
    let given_up = !disk.path().join("rwork.db-ballast").exists();
    std::fs::remove_file(&other)?;
    if given_up {
        log.find(|entry| entry.says("there is room for the embedded broker's reserve again")).await;
    }
    send_until_accepted(&mut producer).await?;
    drained(&producer).await?;

    leave(first).await?;
    let history =
        History::gather(producer, &site.history_log(), Vec::new(), journal, &database, &database).await?;
    let verdict = judge(&history);
    let reserve = if given_up { "was needed" } else { "was not needed" };
    say(format_args!("disk full: {filled} messages filled it at first; the reserve {reserve}\n{verdict}"));
    verdict.clean()?;
    anyhow::ensure!(verdict.ran_again == 0, "{} tasks ran twice", verdict.ran_again);
    let damage = database.check_integrity().await?;
    anyhow::ensure!(damage.is_empty(), "the database is damaged: {damage:?}");
    Ok(())
}

async fn leave(worker: WorkerProcess) -> anyhow::Result<()> {
    let status = worker.terminate().await?;
    anyhow::ensure!(status.success(), "a worker left with {status}");
    Ok(())
}

/// Sends a task that keeps one worker busy until it is let go, and returns when it runs.
async fn hold(producer: &mut Producer, gate: &str, journal: &Journal) -> anyhow::Result<()> {
    let mut log = journal.reader_from_now();
    let id = producer.send_held(gate).await?;
    log.find(|entry| entry.says("task started") && entry.field("task_id") == Some(id.as_str())).await;
    Ok(())
}

fn let_go(site: &Site, gate: &str) -> anyhow::Result<()> {
    Ok(std::fs::write(site.history().join(gate), "")?)
}

/// Waits for the result of all that was accepted.
async fn drained(producer: &Producer) -> anyhow::Result<()> {
    for id in producer.accepted.values() {
        producer.client().wait(id, None).await?;
    }
    Ok(())
}

/// What a producer does that was told to try again.
async fn send_until_accepted(producer: &mut Producer) -> anyhow::Result<()> {
    while let Err(error) = producer.send(BATCH, SPINS).await {
        anyhow::ensure!(error.is_retryable(), "{error}");
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Fills the disk to its last byte.
fn take_the_rest(path: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path)?;
    for size in [1 << 16, 1 << 12, 1] {
        let bytes = vec![0; size];
        while let Ok(written) = file.write(&bytes) {
            anyhow::ensure!(written > 0, "a disk is full with an error");
        }
    }
    Ok(())
}

/// Sends until not one more message fits, and looks at what the producer is told.
async fn fill(producer: &mut Producer) -> anyhow::Result<()> {
    for batch in [BATCH, 1] {
        let error = loop {
            if let Err(error) = producer.send(batch, SPINS).await {
                break error;
            }
        };
        let Error::Send { source, .. } = &error else {
            anyhow::bail!("expected that it can't be sent, got {error:?}")
        };
        assert!(matches!(source, rwork_broker::Error::Full { .. }), "{source:?}");
        assert!(source.to_string().contains("is full: no space left on its disk"), "{source}");
        assert!(error.is_retryable(), "there may be room later");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("free space on that disk")),
            "{:?}",
            error.hint()
        );
    }
    Ok(())
}

/// The same for a person at a terminal. A call may still find room where a batch of larger messages did not, or where the
/// worker has just tidied up: then its message counts like any other, and the rest is filled up again.
async fn fill_for_a_person(site: &Site, producer: &mut Producer) -> anyhow::Result<()> {
    for number in CALLS {
        fill(producer).await?;
        let arguments = ["call", "history.run", &number.to_string(), &SPINS.to_string()];
        let output = rwork_in(site.path()).args(arguments).output()?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        if output.status.success() {
            producer.accepted.insert(number, TaskId::new(stdout.trim())?);
            continue;
        }
        assert_eq!(stdout, "", "nothing was sent");
        for part in ["error: ", "is full: no space left on its disk", "hint: free space on that disk"] {
            assert!(stderr.contains(part), "expected `{part}` in:\n{stderr}");
        }
        return Ok(());
    }
    anyhow::bail!("{} calls in a row found room on a full disk", CALLS.count())
}
