//! What guests said, by task: the lines that the worker logs in their name.
//!
//! The first rig installs the one `tracing` subscriber of the test process. Where `RUST_LOG` is set, it also prints.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Layer};

/// Where the worker logs what guests say.
const TARGET: &str = "rwork::task";

/// Lines by task id. Written by whatever thread a guest speaks on, read by tests.
static LINES: Mutex<Option<HashMap<String, Vec<Line>>>> = Mutex::new(None);

/// One line of a guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How grave it is.
    pub level: Level,
    /// `stdout` or `stderr`; none: through `rwork:task/log`.
    pub source: Option<String>,
    /// What was said.
    pub message: String,
    /// `key=value` pairs.
    pub fields: Option<String>,
}

/// What a task has said so far, in order.
pub fn of(task: &str) -> Vec<Line> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines.as_ref().and_then(|lines| lines.get(task)).cloned().unwrap_or_default()
}

/// Starts to keep lines; once is enough.
///
/// # Panics
/// When another subscriber was installed before.
pub(super) fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let guests = Targets::new().with_target(TARGET, LevelFilter::TRACE);
        let print = std::env::var_os("RUST_LOG").map(|_| {
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_filter(EnvFilter::from_default_env())
        });
        let subscriber = tracing_subscriber::registry().with(Keeper.with_filter(guests)).with(print);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else logs in this process");
    });
}

struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut found = Found::default();
        event.record(&mut found);
        let line = Line {
            level: *event.metadata().level(),
            source: found.source,
            message: found.message,
            fields: found.fields,
        };
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get_or_insert_default().entry(found.task).or_default().push(line);
    }
}

#[derive(Default)]
struct Found {
    task: String,
    source: Option<String>,
    message: String,
    fields: Option<String>,
}

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "source" => self.source = Some(value.to_owned()),
            "fields" => self.fields = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "task_id" => self.task = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}
