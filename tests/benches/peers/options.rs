//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;

pub(crate) const HELP: &str = "\
Measures rwork beside Celery's prefork and solo pools and the native Rust workers `celery` and `celery-rs`.
`make bench` builds and installs what it needs. RWORK_BEFORE names an `rwork` binary of an edition before: it is measured
in the same rounds.

Usage: cargo bench --workspace --bench peers -- [OPTIONS]

  --broker NAME     Only on this one: redis or rabbitmq [default: on both]
  --rounds N        Rounds of everything [default: 3]
  --tasks N         Tasks of one drain [default: 100000]
  --trips N         Round trips of one round [default: 1000]
  --full            Give Celery's prefork pool all of the tasks, too
  --json-file FILE  Add the figures to those in FILE, as JSON
  --check           Exit with status 1 when a bound is missed
  --help            Print this";

const BROKERS: &[&str] = &["redis", "rabbitmq"];

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// None: on all of them.
    pub(crate) broker: Option<String>,
    /// Of everything.
    pub(crate) rounds: usize,
    /// Of one drain.
    pub(crate) tasks: usize,
    /// Of one round.
    pub(crate) trips: usize,
    /// All tasks for everybody, however long that takes.
    pub(crate) full: bool,
    /// Where the figures are added as JSON.
    pub(crate) json_file: Option<PathBuf>,
    /// A missed bound is a failure.
    pub(crate) check: bool,
}

impl Options {
    /// None: help was asked for.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<Self>> {
        let mut options = Self {
            broker: None,
            rounds: 3,
            tasks: 100_000,
            trips: 1_000,
            full: false,
            json_file: None,
            check: false,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("`{flag}` needs a value"));
            match flag.as_str() {
                "--broker" => options.broker = Some(broker(value()?)?),
                "--rounds" => options.rounds = count(&flag, &value()?)?,
                "--tasks" => options.tasks = count(&flag, &value()?)?,
                "--trips" => options.trips = count(&flag, &value()?)?,
                "--json-file" => options.json_file = Some(value()?.into()),
                "--full" => options.full = true,
                "--check" => options.check = true,
                "--help" | "-h" => return Ok(None),
                // What cargo says to every benchmark.
                "--bench" => {}
                other => anyhow::bail!("unknown option `{other}`\n\n{HELP}"),
            }
        }
        Ok(Some(options))
    }

    /// Whether this broker is wanted.
    pub(crate) fn measures(&self, broker: &str) -> bool {
        self.broker.as_ref().is_none_or(|only| only == broker)
    }
}

fn broker(name: String) -> anyhow::Result<String> {
    anyhow::ensure!(
        BROKERS.contains(&name.as_str()),
        "expected `--broker` to be {}, got `{name}`",
        BROKERS.join(" or ")
    );
    Ok(name)
}

fn count(flag: &str, text: &str) -> anyhow::Result<usize> {
    let number: Option<usize> = text.parse().ok();
    number
        .filter(|number| *number > 0)
        .with_context(|| format!("expected `{flag}` to be 1 or more, got `{text}`"))
}
