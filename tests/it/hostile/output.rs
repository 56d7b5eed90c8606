//! Guests that hand over more than anyone wants: floods of output, giant results.

use rwork_tests::rig::{Setup, log};
use rwork_worker::Summary;
use tracing::Level;

use super::{Ended, let_loose, unlimited};

/// What is printed in `make test`; `make chaos` prints 1 GiB.
const FLOOD_MEBIBYTES: usize = 64;
const FLOOD_MEBIBYTES_FULL: usize = 1024;

const LOG_BYTES: usize = 256 << 10;

const RESULT_BYTES: usize = 16 << 20;

/// What one call copies at most: twice the largest result and 1 MiB.
const HOST_CALL_BYTES: usize = 2 * RESULT_BYTES + (1 << 20);

fn everything() -> bool {
    std::env::var_os("RWORK_CHAOS").is_some_and(|chaos| chaos == "full")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_is_cut_and_the_task_succeeds() {
    let mebibytes = if everything() { FLOOD_MEBIBYTES_FULL } else { FLOOD_MEBIBYTES };
    let ended = let_loose(
        Setup::new(&["math", "hostile"]),
        "hostile.flood",
        &format!("[{mebibytes}]"),
        unlimited(),
        |sum| {
            sum.succeeded += 1;
        },
    )
    .await;
    ended.assert_value(&mebibytes.to_string());

    let (notice, lines) = ended.said.split_last().unwrap();
    let cut = log::Line {
        level: Level::WARN,
        source: Some("stdout".to_owned()),
        message: format!("output cut here: this invocation wrote more than its {LOG_BYTES} bytes"),
        fields: None,
    };
    assert_eq!(notice, &cut);
    // A line is 10 bytes of escapes and words, 1014 of `x` and a newline. Nothing of it moves a cursor any more.
    let whole = format!("\\u{{1b}}[31mred\\u{{7}} {}", "x".repeat(1014));
    let (last, lines) = lines.split_last().unwrap();
    assert!(lines.iter().all(|line| line.message == whole && line.source.as_deref() == Some("stdout")));
    assert!(whole.starts_with(&last.message), "{last:?}");
    assert_eq!(lines.len(), LOG_BYTES / 1025);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_result_is_refused_by_its_size() {
    // Room for the text, its JSON, and the buffer that the JSON grew out of.
    let roomy = Setup::new(&["math", "hostile"]).sandbox(|sandbox| sandbox.memory_bytes_max = 1 << 30);
    let roomy = roomy.task("hostile.giant", r#"{"memory": "1GiB"}"#);
    let ended = let_loose(roomy, "hostile.giant", "[100]", unlimited(), |summary: &mut Summary| {
        summary.result_too_large += 1;
    })
    .await;
    // It is not even copied, so its size is not known: only that it is over this.
    assert_too_large(&ended, HOST_CALL_BYTES + 1);
    // With its quotes, where it is small enough to be measured at all.
    let setup = Setup::new(&["math", "hostile"]);
    let ended = let_loose(setup, "hostile.giant", "[17]", unlimited(), |summary: &mut Summary| {
        summary.result_too_large += 1;
    })
    .await;
    assert_too_large(&ended, (17 << 20) + 2);
}

#[track_caller]
fn assert_too_large(ended: &Ended, size: usize) {
    let message = format!("[\"expected a result of at most {RESULT_BYTES} bytes, got {size}\"]");
    ended.assert_exception("rwork.errors", "ResultTooLarge", &message);
}
