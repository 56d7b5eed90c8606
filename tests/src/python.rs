//! Python with the real Celery client: one process for each version in a test binary, shared by all of its tests.
//!
//! The process is `tests/python/client.py`; a test runs Python code in a [`Lane`] of its own there, as a user would write
//! it, and gets the value back or the exception. Waiting is Celery's own (`get(timeout=T)`): nothing here sleeps.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::child;
use crate::guests::target_directory;

/// Which Celery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 5.7 with kombu 5.7: the reference.
    Current,
    /// 5.4 with kombu 5.4.
    Old,
    /// 5.2 with kombu 5.2, which has no typed JSON values.
    Oldest,
}

impl Version {
    /// All of them, newest first.
    pub const ALL: [Self; 3] = [Self::Current, Self::Old, Self::Oldest];

    /// `5.7`.
    pub fn number(self) -> &'static str {
        match self {
            Self::Current => "5.7",
            Self::Old => "5.4",
            Self::Oldest => "5.2",
        }
    }

    /// The interpreter of its virtual environment.
    ///
    /// # Panics
    /// When it was not installed.
    pub fn interpreter(self) -> PathBuf {
        let directory = target_directory().join(format!("venv/celery-{}", self.number()));
        assert!(
            directory.join("made-from").is_file(),
            "there is no Celery {} in {}; run `make setup`",
            self.number(),
            directory.display()
        );
        directory.join("bin/python")
    }

    /// The process of this version.
    ///
    /// # Panics
    /// When it can't be started.
    #[allow(clippy::panic, reason = "without Celery no test of it can say anything")]
    pub fn client(self) -> &'static Python {
        static CURRENT: LazyLock<anyhow::Result<Python>> = LazyLock::new(|| Python::start(Version::Current));
        static OLD: LazyLock<anyhow::Result<Python>> = LazyLock::new(|| Python::start(Version::Old));
        static OLDEST: LazyLock<anyhow::Result<Python>> = LazyLock::new(|| Python::start(Version::Oldest));
        let started = match self {
            Self::Current => &CURRENT,
            Self::Old => &OLD,
            Self::Oldest => &OLDEST,
        };
        started.as_ref().unwrap_or_else(|error| panic!("Celery {}: {error:#}", self.number()))
    }
}

/// Where the Python sources of the tests are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// An exception that Python code raised.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Raised {
    /// Module of its class.
    pub module: Box<str>,
    /// Qualified name of its class.
    pub name: String,
    /// Its arguments.
    pub args: Value,
    /// Its base classes, nearest first, with their modules.
    #[serde(default)]
    pub bases: Box<[String]>,
    /// As Python prints it.
    #[serde(default)]
    pub text: Box<str>,
    /// Where it was raised.
    #[serde(default)]
    pub traceback: Box<str>,
}

impl Raised {
    /// `module.Class`.
    pub fn class(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Python raised {}{}\n{}", self.class(), self.args, self.traceback)
    }
}

impl std::error::Error for Raised {}

type Answer = Result<Value, Raised>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A Python process.
#[derive(Debug)]
pub struct Python {
    /// Kept so that its pipes stay open; it ends with this process.
    _child: Child,
    /// Held while a line is written.
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Python {
    fn start(version: Version) -> anyhow::Result<Self> {
        let mut command = child::mortal(version.interpreter());
        command.arg("-u").arg(sources().join("client.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Not into the sources: `__pycache__` would come and go while other tests look at them.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("RWORK_TESTS_APP");
        let mut process = child::spawn(command)?;
        let stdin = process.stdin.take().context("Python has no stdin")?;
        let mut lines = BufReader::new(process.stdout.take().context("Python has no stdout")?).lines();
        let greeting: Value = match lines.next() {
            Some(line) => serde_json::from_str(&line?)?,
            None => anyhow::bail!("Python ended before its first word"),
        };
        let is = greeting.get("celery").and_then(Value::as_str).unwrap_or_default();
        anyhow::ensure!(is.starts_with(version.number()), "expected Celery {}, got {is}", version.number());
        let waiting = Waiting::default();
        let answered = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                deliver(&answered, &line);
            }
            // Whoever waits is told by its sender's end.
            answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Self { _child: process, stdin: Mutex::new(stdin), waiting, next: AtomicU64::new(1) })
    }

    /// A thread of its own in the process.
    pub fn lane(&'static self) -> Lane {
        Lane { python: self, name: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    fn order(&self, lane: u64, code: &str, args: &Value) -> anyhow::Result<oneshot::Receiver<Answer>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        self.write(&json!({"id": id, "lane": lane, "code": code, "args": args}))?;
        Ok(receiver)
    }

    fn write(&self, order: &Value) -> anyhow::Result<()> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(stdin, "{order}").context("the Python process has ended")
    }
}

#[derive(Deserialize)]
struct Reply {
    id: u64,
    #[serde(default)]
    value: Value,
    raised: Option<Raised>,
}

fn deliver(waiting: &Waiting, line: &str) {
    let Ok(reply) = serde_json::from_str::<Reply>(line) else {
        crate::process::say(format_args!("Python said: {line}"));
        return;
    };
    let sender = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&reply.id);
    if let Some(sender) = sender {
        // A test that has failed meanwhile no longer waits.
        let _ = sender.send(reply.raised.map_or(Ok(reply.value), Err));
    }
}

/// A thread in the Python process that runs one piece of code after the other. Ends when dropped.
#[derive(Debug)]
pub struct Lane {
    python: &'static Python,
    name: u64,
}

impl Lane {
    /// Runs the body of a function, with these arguments by name (a JSON object); see `client.py` for what it can use.
    ///
    /// # Errors
    /// The exception that it raised.
    ///
    /// # Panics
    /// When the process has ended.
    #[allow(clippy::panic, reason = "a Python process that is gone fails every test")]
    pub async fn run(&self, code: &str, args: Value) -> Answer {
        let answer = match self.python.order(self.name, code, &args) {
            Ok(answer) => answer.await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| panic!("the Python process is gone: {error:#}"))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A process that is gone has no lanes.
        let _ = self.python.write(&json!({"lane": self.name, "close": true}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_exceptions_and_names_come_back() {
        for version in Version::ALL {
            let lane = version.client().lane();
            let value = lane.run("own['y'] = 2\nreturn (x, y2 := 3, float('nan'))", json!({"x": 1})).await;
            assert_eq!(value.unwrap(), json!([1, 3, {"$": "float", "text": "nan"}]));
            assert_eq!(lane.run("return y", json!({})).await.unwrap(), json!(2));
            let raised = lane.run("raise KnownError('no', 7)", json!({})).await.unwrap_err();
            assert_eq!((raised.class().as_str(), &raised.args), ("app.KnownError", &json!(["no", 7])));
            let other = version.client().lane();
            assert_eq!(other.run("return y", json!({})).await.unwrap_err().name, "NameError");
        }
    }
}
