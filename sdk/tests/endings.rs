//! Errors as Celery stores them, and the four wishes: retry, reject, ignore, replace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use rwork::testing::{TestContext, run};
use rwork::{
    Context, ProgressError, RetryLimit, SendError, Signature, StopReason, Stopped, TaskError, Value, json,
    log,
};

#[derive(Debug)]
struct FetchError(io::Error);

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to fetch")
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Type, module and arguments.
fn stored(error: &TaskError) -> (&str, &str, &str) {
    (error.exc_type().unwrap(), error.exc_module().unwrap(), error.exc_args().unwrap())
}

#[test]
fn a_failure_carries_what_celery_stores() {
    let error = TaskError::new("ValueError", "say \"no\"");
    assert_eq!(stored(&error), ("ValueError", "builtins", r#"["say \"no\""]"#));
    let error = TaskError::new("PaymentError", "declined")
        .module("shop.errors")
        .args(("declined", 402))
        .not_retryable();
    assert_eq!(stored(&error), ("PaymentError", "shop.errors", r#"["declined",402]"#));
    assert!(!error.is_retryable());
    let error = TaskError::new("PaymentError", "declined").args(7);
    assert_eq!(stored(&error), ("PaymentError", "rwork.errors", "[7]"));
    let stopped = TaskError::from(Stopped(StopReason::SoftTimeLimit)).context("a.txt");
    assert_eq!(stored(&stopped), ("SoftTimeLimitExceeded", "billiard.exceptions", "[]"));
    let error = TaskError::new("OSError", "full").context("a.txt");
    assert_eq!(
        (error.to_string().as_str(), error.exc_args()),
        ("OSError: a.txt: full", Some("[\"a.txt: full\"]"))
    );
}

#[test]
fn standard_errors_turn_into_pythons() {
    let errors: [(TaskError, &str, &str); 9] = [
        (FetchError(io::Error::other("reset")).into(), "FetchError", "rwork.errors"),
        (io::Error::from(io::ErrorKind::NotFound).into(), "FileNotFoundError", "builtins"),
        (io::Error::from(io::ErrorKind::PermissionDenied).into(), "PermissionError", "builtins"),
        (io::Error::from(io::ErrorKind::ConnectionRefused).into(), "ConnectionRefusedError", "builtins"),
        (io::Error::other("x").into(), "OSError", "builtins"),
        ("x".parse::<i32>().unwrap_err().into(), "ValueError", "builtins"),
        (u8::try_from(300_i32).unwrap_err().into(), "OverflowError", "builtins"),
        (serde_json::from_str::<u8>("x").unwrap_err().into(), "ValueError", "builtins"),
        (TaskError::from_error(&fmt::Error), "RuntimeError", "builtins"),
    ];
    for (error, exc_type, exc_module) in errors {
        assert_eq!((error.exc_type(), error.exc_module()), (Some(exc_type), Some(exc_module)));
    }
}

#[test]
fn the_traceback_says_where_and_why() {
    fn fetch() -> Result<(), TaskError> {
        Err(FetchError(io::Error::other("connection reset")))?;
        Ok(())
    }
    let traceback = fetch().unwrap_err().traceback().unwrap();
    assert!(
        traceback.starts_with("Traceback (most recent call last):\n  File \"sdk/tests/endings.rs\", line "),
        "{traceback}"
    );
    assert!(
        traceback.ends_with("\nFetchError: failed to fetch\n  caused by: connection reset"),
        "{traceback}"
    );
    let placeless =
        run(&PLUGIN, &TestContext::new("endings.wait"), "[]", "{}").unwrap_err().traceback().unwrap();
    assert!(
        placeless.starts_with("Traceback (most recent call last):\nTypeError: wait() missing 1"),
        "{placeless}"
    );
    let caused =
        TaskError::new("OSError", "x").caused_by(&FetchError(io::Error::other("y"))).traceback().unwrap();
    assert!(caused.ends_with("\nOSError: x\n  caused by: failed to fetch\n  caused by: y"), "{caused}");
}

#[test]
fn stops_turn_into_the_exceptions_of_celerys_limits() {
    for (reason, wanted) in [
        (StopReason::SoftTimeLimit, ("SoftTimeLimitExceeded", "billiard.exceptions", "[]")),
        (StopReason::Revoked, ("TaskRevokedError", "celery.exceptions", "[\"terminated\"]")),
        (StopReason::Shutdown, ("WorkerShutdown", "celery.exceptions", "[\"the worker is shutting down\"]")),
        (StopReason::Other("rest".to_owned()), ("InterruptedError", "builtins", "[\"rest\"]")),
    ] {
        let errors: [TaskError; 3] = [
            Stopped(reason.clone()).into(),
            ProgressError::Stopped(reason.clone()).into(),
            SendError::Stopped(reason).into(),
        ];
        for error in &errors {
            assert_eq!(stored(error), wanted);
        }
    }
}

#[rwork::task(name = "endings.wait")]
fn wait(ctx: &Context, seconds: u64) -> Result<u64, TaskError> {
    for second in 0..seconds {
        ctx.checkpoint()?;
        ctx.progress("PROGRESS", json!({"current": second, "total": seconds}))?;
        log::info!("second {second}");
        ctx.sleep(Duration::from_secs(1))?;
    }
    Ok(seconds)
}

#[rwork::task(name = "endings.all")]
fn all(ctx: &Context, how: &str) -> Result<Value, TaskError> {
    match how {
        "retry" => Err(ctx
            .retry()
            .delay(Duration::from_millis(1_500))
            .max_retries(5)
            .cause(TaskError::new("ValueError", "not yet"))
            .queue("slow")
            .option("priority", 3)
            .with_input((1, "two"), json!({"three": 3}))?
            .into()),
        "forever" => Err(ctx.retry().unlimited().into()),
        "reject" => Err(TaskError::reject(true, "not mine")),
        "ignore" => Err(TaskError::ignore()),
        "replace" => Err(TaskError::replace(Signature::new("other.task").arg(1))),
        other => Ok(json!(other)),
    }
}

rwork::plugin!(wait, all);

fn ending(how: &str) -> TaskError {
    all(&TestContext::new("endings.all"), how).unwrap_err()
}

#[test]
fn wishes_are_told_apart() {
    let retry = ending("retry");
    let wish = retry.as_retry().unwrap();
    assert_eq!(wish.requested_delay(), Some(Duration::from_millis(1_500)));
    assert_eq!(wish.requested_limit(), RetryLimit::AtMost(5));
    assert_eq!(wish.requested_options(), r#"{"queue":"slow","priority":3}"#);
    assert_eq!(retry.to_string(), "retry in 1.5s: ValueError: not yet");
    assert_eq!(ending("forever").as_retry().unwrap().requested_limit(), RetryLimit::Unlimited);
    assert_eq!(ending("reject").as_reject(), Some((true, "not mine")));
    assert!(ending("ignore").is_ignore() && ending("ignore").exc_type().is_none());
    assert_eq!(ending("replace").as_replace().unwrap().task(), "other.task");
}

#[test]
fn the_next_attempts_arguments_must_be_a_call() {
    let test = TestContext::new("x");
    assert!(test.retry().with_input((), ()).is_ok());
    for error in [test.retry().with_input(1, ()).unwrap_err(), test.retry().with_input((), [1]).unwrap_err()]
    {
        assert_eq!(error.exc_type(), Some("ValueError"));
    }
}

#[test]
fn the_soft_limit_ends_a_wait_and_leaves_a_trail() {
    let test = TestContext::new("endings.wait")
        .with_soft_limit(Duration::from_millis(1_500))
        .with_hard_limit(Duration::from_secs(9));
    let error = wait(&test, 5).unwrap_err();
    assert_eq!(error.exc_type(), Some("SoftTimeLimitExceeded"));
    assert_eq!(test.slept(), Duration::from_millis(1_500));
    let left = test.remaining();
    assert_eq!((left.soft, left.hard), (Some(Duration::ZERO), Some(Duration::from_millis(7_500))));
    let states = test.states();
    assert_eq!(states[1], ("PROGRESS".to_owned(), json!({"current": 1, "total": 5})));
    assert_eq!(states.len(), 2);
    assert_eq!(
        test.logs(),
        [(log::Level::Info, "second 0".to_owned()), (log::Level::Info, "second 1".to_owned())]
    );
}

#[test]
fn a_stop_is_seen_at_the_next_checkpoint() {
    let test = TestContext::new("endings.wait").with_stop_after(Duration::ZERO, StopReason::Revoked);
    assert_eq!(test.stop_requested(), Some(StopReason::Revoked));
    assert_eq!(run(&PLUGIN, &test, "[5]", "{}").unwrap_err().exc_type(), Some("TaskRevokedError"));
    assert_eq!(test.slept(), Duration::ZERO);
}

#[test]
fn the_request_is_what_the_test_has_set() {
    let test = TestContext::new("x")
        .with_retries(2)
        .with_header("tenant", json!({"id": 7}))
        .with_request(|request| request.priority = Some(5));
    let request = test.request();
    assert_eq!((request.retries, request.priority, request.queue.as_str()), (2, Some(5), "celery"));
    assert_eq!(test.header::<Value>("tenant"), Some(json!({"id": 7})));
    assert_eq!(test.header::<u8>("tenant"), None, "another type");
    assert_eq!(test.header::<Value>("absent"), None);
    assert_eq!(test.header_names(), ["tenant"]);
}

#[test]
fn progress_that_cannot_be_stored_is_an_error() {
    let test = TestContext::new("endings.wait")
        .with_progress_error(ProgressError::Denied("grant `progress`".to_owned()));
    let error = wait(&test, 1).unwrap_err();
    assert_eq!(error.to_string(), "BackendError: storing progress is not granted: grant `progress`");
    let map = std::collections::BTreeMap::from([([1], 1)]);
    assert!(matches!(TestContext::new("x").progress("PROGRESS", map), Err(ProgressError::Encode(_))));
}
