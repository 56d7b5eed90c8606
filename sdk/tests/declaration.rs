//! What `#[task]` declares of a function: its name, its summary and Celery's options as JSON.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::cell::RefCell;

use rwork::testing::{self, TestContext};
use rwork::{Context, EndReason, Ended, json};

/// Does nothing,
/// and says so in two lines.
///
/// This paragraph is not part of the summary.
#[rwork::task]
fn plain() {}

/// Overridden.
#[rwork::task(
    name = "every.option",
    summary = "All of them.",
    max_retries = None,
    default_retry_delay = "3m",
    autoretry_for = [ConnectionError, "TimeoutError"],
    dont_autoretry_for = ["PermissionError"],
    retry_backoff = 2,
    retry_backoff_max = "10m",
    retry_jitter = false,
    rate_limit = "100/m",
    time_limit = "1h",
    soft_time_limit = "59m30s",
    memory = "64MiB",
    result_bytes = "1MiB",
    log_bytes = 4096,
    acks_late = false,
    acks_on_failure,
    acks_on_timeout = false,
    acks_on_failure_or_timeout,
    reject_on_worker_lost,
    ignore_result,
    store_errors_even_if_ignored,
    track_started,
    queue = "mail",
    priority = 9,
    expires = "1d",
    accepts = ["json"],
    cleanup = tidy,
    bind = true,
)]
fn every(_ctx: &Context, path: &str, #[default(3)] times: u8) -> String {
    format!("{path} {times}")
}

thread_local! {
    static TIDIED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn tidy(ctx: &Context, ended: &Ended<'_>) {
    let path = ended.argument::<String>("path").map_err(|error| error.to_string());
    let times = ended.argument::<u8>("times").ok().flatten();
    let line = format!("{} {} {path:?} {times:?}", ctx.task(), ended.reason());
    TIDIED.with_borrow_mut(|tidied| tidied.push(line));
}

rwork::plugin!(plain, every);

#[test]
fn the_first_paragraph_is_the_summary_and_the_package_is_the_module() {
    let plain = PLUGIN.tasks()[0];
    assert_eq!(
        (plain.name, plain.summary, plain.options),
        ("rwork.plain", "Does nothing, and says so in two lines.", "")
    );
}

#[test]
fn options_become_celerys_document() {
    let every = PLUGIN.tasks()[1];
    assert_eq!((every.name, every.summary), ("every.option", "All of them."));
    let document: rwork::Value = every.options.parse().unwrap();
    let wanted = json!({
        "max_retries": null,
        "default_retry_delay": 180,
        "autoretry_for": ["ConnectionError", "TimeoutError"],
        "dont_autoretry_for": ["PermissionError"],
        "retry_backoff": 2,
        "retry_backoff_max": 600,
        "retry_jitter": false,
        "rate_limit": "100/m",
        "time_limit": 3600,
        "soft_time_limit": 3570,
        "memory": 67_108_864,
        "result_bytes": 1_048_576,
        "log_bytes": 4096,
        "acks_late": false,
        "acks_on_failure": true,
        "acks_on_timeout": false,
        "acks_on_failure_or_timeout": true,
        "reject_on_worker_lost": true,
        "ignore_result": true,
        "store_errors_even_if_ignored": true,
        "track_started": true,
        "queue": "mail",
        "priority": 9,
        "expires": 86_400,
        "accepts": ["json"],
        "cleanup": true,
    });
    assert_eq!(document, wanted);
}

#[test]
fn the_cleanup_sees_the_call_and_the_reason() {
    let test = TestContext::new("every.option");
    testing::cleanup(&PLUGIN, &test, "[\"a.txt\"]", "{}", EndReason::HardTimeLimit);
    testing::cleanup(
        &PLUGIN,
        &test,
        "[]",
        r#"{"times": 2, "path": "b.txt"}"#,
        EndReason::Trap("boom".to_owned()),
    );
    testing::cleanup(&PLUGIN, &test, "[]", "{}", EndReason::Revoked);
    // A task without one.
    testing::cleanup(&PLUGIN, &TestContext::new("rwork.plain"), "[]", "{}", EndReason::MemoryLimit);
    let tidied = TIDIED.with_borrow(Clone::clone);
    let missing = "Err(\"TypeError: every() missing 1 required positional argument: 'path'\")";
    assert_eq!(
        tidied,
        [
            "every.option hard time limit Ok(Some(\"a.txt\")) None".to_owned(),
            "every.option trap: boom Ok(Some(\"b.txt\")) Some(2)".to_owned(),
            format!("every.option revoked {missing} None"),
        ]
    );
}
