//! Running tasks natively, under `cargo test`.
//!
//! A task's function is a plain function and can be called as one. A task that takes a [`Context`] gets that of a
//! [`TestContext`]; [`run`] goes the whole way of a message, with argument binding and encoding.
//!
//! ```
//! use std::time::Duration;
//! use rwork::testing::{TestContext, run};
//! use rwork::{Context, TaskError};
//!
//! #[rwork::task(name = "clock.wait")]
//! fn wait(ctx: &Context, seconds: u64) -> Result<(), TaskError> {
//!     ctx.progress("WAITING", seconds)?;
//!     ctx.sleep(Duration::from_secs(seconds))?;
//!     Ok(())
//! }
//! rwork::plugin!(wait);
//!
//! # fn main() {
//! let test = TestContext::new("clock.wait").with_soft_limit(Duration::from_secs(30));
//! let error = wait(&test, 60).unwrap_err();
//! assert_eq!(error.exc_type(), Some("SoftTimeLimitExceeded"));
//! assert_eq!(test.states(), [("WAITING".to_owned(), rwork::json!(60))]);
//! assert_eq!(test.slept(), Duration::from_secs(30));
//!
//! let error = run(&PLUGIN, &test, "[]", "{}").unwrap_err();
//! assert_eq!(error.message(), Some("wait() missing 1 required positional argument: 'seconds'"));
//! # }
//! ```
//!
//! The clock of a [`TestContext`] stands still and only moves when the task sleeps: tests take no time.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Once;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::call::Input;
use crate::cleanup::EndReason;
use crate::context::{Context, ProgressError, RemoteFailure, SendError, StopReason};
use crate::host::{Host, State};
use crate::{Plugin, Request, TaskError, json};

/// A context of which a test sets what the task will see, and reads what the task has done.
///
/// It stands for its [`Context`] wherever one is wanted: `my_task(&test, 2)`.
#[derive(Debug)]
pub struct TestContext {
    context: Context,
}

impl TestContext {
    /// The context of a first attempt at a task without limits.
    pub fn new(task: &str) -> Self {
        capture_logs();
        let id = "00000000-0000-4000-8000-000000000001".to_owned();
        let host = Host::default();
        host.0.borrow_mut().request = Request {
            root_id: id.clone(),
            delivery_count: 1,
            queue: "celery".to_owned(),
            hostname: "worker1@localhost".to_owned(),
            ..Request::default()
        };
        Self { context: Context::new(task.to_owned(), id, host) }
    }

    /// Changes what the task is told of its message.
    #[must_use]
    pub fn with_request(self, change: impl FnOnce(&mut Request)) -> Self {
        self.set(|state| change(&mut state.request))
    }

    /// This many attempts ended in a retry before.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> Self {
        self.with_request(|request| request.retries = retries)
    }

    /// The message has this header.
    ///
    /// # Panics
    ///
    /// When the value has no JSON.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test that cannot be set up should fail")]
    pub fn with_header(self, name: &str, value: impl Serialize) -> Self {
        let value = json::to_string(&value).expect("a header's value needs JSON");
        self.set(|state| _ = state.headers.insert(name.to_owned(), value))
    }

    /// The soft time limit passes after the task has slept so long.
    #[must_use]
    pub fn with_soft_limit(self, limit: Duration) -> Self {
        self.set(|state| state.soft_limit = Some(limit))
    }

    /// What [`Context::remaining`] counts down from. Nothing ends the task when it has passed.
    #[must_use]
    pub fn with_hard_limit(self, limit: Duration) -> Self {
        self.set(|state| state.hard_limit = Some(limit))
    }

    /// The host wishes the task to stop once it has slept so long.
    #[must_use]
    pub fn with_stop_after(self, slept: Duration, reason: StopReason) -> Self {
        self.set(|state| state.stop = Some((slept, reason)))
    }

    /// The task `id` has this result. Ids that the task gets from sending are `sent-1`, `sent-2` and so on.
    ///
    /// # Panics
    ///
    /// When the value has no JSON.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test that cannot be set up should fail")]
    pub fn with_result(self, id: &str, value: impl Serialize) -> Self {
        let value = json::to_string(&value).expect("a result needs JSON");
        self.set(|state| _ = state.results.insert(id.to_owned(), Ok(value)))
    }

    /// The task `id` has failed.
    #[must_use]
    pub fn with_failure(self, id: &str, exc_type: &str, message: &str) -> Self {
        let mut exc_args = String::from("[");
        json::write_string(&mut exc_args, message);
        exc_args.push(']');
        let failure = RemoteFailure {
            exc_type: exc_type.to_owned(),
            exc_module: None,
            exc_args,
            message: message.to_owned(),
            traceback: None,
        };
        self.set(|state| _ = state.results.insert(id.to_owned(), Err(SendError::Failed(failure))))
    }

    /// Sending fails with this.
    #[must_use]
    pub fn with_send_error(self, error: SendError) -> Self {
        self.set(|state| state.send_error = Some(error))
    }

    /// Storing progress fails with this.
    #[must_use]
    pub fn with_progress_error(self, error: ProgressError) -> Self {
        self.set(|state| state.progress_error = Some(error))
    }

    /// The states that the task has stored, with their metadata.
    pub fn states(&self) -> Vec<(String, Value)> {
        let state = self.context.host.0.borrow();
        state.progress.iter().map(|(name, meta)| (name.clone(), value(meta))).collect()
    }

    /// The signatures that the task has sent, as Celery writes them.
    pub fn sent(&self) -> Vec<Value> {
        self.context.host.0.borrow().sent.iter().map(|signature| value(signature)).collect()
    }

    /// How long the task has slept.
    pub fn slept(&self) -> Duration {
        self.context.host.0.borrow().now
    }

    /// What was logged through the `log` crate in this thread since the newest context was made, unless the test has a
    /// logger of its own.
    pub fn logs(&self) -> Vec<(log::Level, String)> {
        LOGS.with_borrow(Clone::clone)
    }

    fn set(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.context.host.0.borrow_mut());
        self
    }
}

impl Deref for TestContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

/// Runs the context's task as a message would: `args` is a JSON array, `kwargs` a JSON object, the answer is JSON too.
///
/// # Errors
///
/// What the task returns, or a `TypeError` when the arguments do not fit it.
pub fn run(plugin: &Plugin, context: &Context, args: &str, kwargs: &str) -> Result<String, TaskError> {
    let encoded = plugin.run(context, Input::json(args, kwargs))?;
    // The encoder writes strings; that they are valid UTF-8 cannot fail.
    Ok(String::from_utf8_lossy(&encoded).into_owned())
}

/// Calls the cleanup function of the context's task, if it has one.
pub fn cleanup(plugin: &Plugin, context: &Context, args: &str, kwargs: &str, reason: EndReason) {
    plugin.cleanup(context, &Input::json(args, kwargs), reason);
}

fn value(text: &str) -> Value {
    // What the SDK has written is JSON, but for the numbers that JSON lacks.
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

thread_local! {
    static LOGS: RefCell<Vec<(log::Level, String)>> = const { RefCell::new(Vec::new()) };
}

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGS.with_borrow_mut(|logs| logs.push((record.level(), record.args().to_string())));
    }

    fn flush(&self) {}
}

fn capture_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A test that has set a logger of its own keeps it.
        if log::set_logger(&Capture).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    });
    LOGS.with_borrow_mut(Vec::clear);
}
