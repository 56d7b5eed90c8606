//! The manifest beside a component: what the plugin is called, its limits, and what it asks for.
//!
//! A manifest never grants anything: whoever can write the plugin directory must not be able to open the sandbox.
//! `[requests]` is for people, who see it in `rwork plugins inspect`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _};

use crate::error::Error;
use crate::id::PluginId;
use crate::options::TaskOptions;
use crate::quantity::{ByteSize, Seconds};
use crate::strict::{Setting, did_you_mean, parsed, strict};

/// Longest list in `[requests]`: it is shown to people.
const REQUESTS_MAX: usize = 100;

strict! {
    /// `NAME.toml` beside `NAME.wasm`, or `plugin.toml` in the plugin's folder.
    pub struct Manifest("a plugin's manifest") {
        /// The plugin's name; default: the stem of the file.
        name: PluginId,
        /// One line for people.
        description: String,
        /// Limits of every task of the plugin.
        limits: ManifestLimits,
        /// Options of single tasks, by task name; over `limits`.
        tasks: TaskTable,
        /// What the plugin needs granted, for people.
        requests: Requests,
    }
}

strict! {
    /// `[limits]` of a manifest.
    pub struct ManifestLimits("limits") {
        /// Sum over all linear memories.
        memory: ByteSize,
        /// Hard limit; 0: none.
        time_limit: Seconds,
        /// Soft limit; 0: none.
        soft_time_limit: Seconds,
        /// Largest encoded result.
        result: ByteSize,
        /// Log lines, stdout and stderr together.
        log: ByteSize,
    }
}

strict! {
    /// `[requests]` of a manifest: shown, never acted on.
    #[derive(Eq)]
    pub struct Requests("requests") {
        /// Directories, as the plugin sees them.
        dirs: Texts,
        /// Environment variables.
        env: Texts,
        /// Origins.
        http: Texts,
        /// Task names or patterns that it sends.
        submit: Texts,
    }
}

/// `[tasks."name"]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskTable(pub BTreeMap<String, TaskOptions>);

/// A short list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Setting for PluginId {}
impl Setting for ManifestLimits {}
impl Setting for Requests {}
impl Setting for TaskTable {}
impl Setting for Texts {}

impl<'de> Deserialize<'de> for PluginId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, |text| Self::new(text))
    }
}

impl<'de> Deserialize<'de> for TaskTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > REQUESTS_MAX {
            return Err(D::Error::custom(format_args!(
                "expected at most {REQUESTS_MAX} entries, got {}",
                texts.len()
            )));
        }
        Ok(Self(texts))
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the line, [`Error::ManifestGrants`] when it tries to grant.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| match grants_line(text) {
            Some(line) => Error::ManifestGrants { path: path.to_owned(), line },
            None => Error::Manifest {
                path: path.to_owned(),
                line: error.span().map_or(1, |span| line_at(text, span.start)),
                message: error.message().to_owned(),
            },
        })
    }

    /// What the manifest says of one task: its own table over the plugin's limits.
    pub fn options(&self, task: &str) -> TaskOptions {
        let limits = self.limits.clone().unwrap_or_default();
        let of_plugin = TaskOptions {
            memory: limits.memory,
            time_limit: limits.time_limit,
            soft_time_limit: limits.soft_time_limit,
            result_bytes: limits.result,
            log_bytes: limits.log,
            ..TaskOptions::default()
        };
        let own = self.tasks.as_ref().and_then(|tasks| tasks.0.get(task)).cloned();
        own.unwrap_or_default().over(&of_plugin)
    }

    /// Refuses options for a task that the plugin doesn't have.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the line.
    pub(crate) fn check_tasks(&self, path: &Path, text: &str, declared: &[&str]) -> Result<(), Error> {
        let Some(tasks) = &self.tasks else { return Ok(()) };
        let Some(unknown) = tasks.0.keys().find(|name| !declared.contains(&name.as_str())) else {
            return Ok(());
        };
        let offer = did_you_mean(unknown, declared.iter().copied());
        Err(Error::Manifest {
            path: path.to_owned(),
            line: text.find(unknown.as_str()).map_or(1, |at| line_at(text, at)),
            message: format!("options for task `{unknown}`, which the plugin does not declare{offer}"),
        })
    }
}

/// Line of a top-level `grants`, if the file has one: worth an error of its own.
fn grants_line(text: &str) -> Option<usize> {
    let table: toml::Table = toml::from_str(text).ok()?;
    table.get("grants")?;
    text.find("grants").map(|at| line_at(text, at))
}

/// Line of a byte offset, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(Path::new("math.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_have_a_line() {
        let table = [
            (
                "nam = \"math\"",
                "`math.toml` line 1: unknown key `nam` in a plugin's manifest; did you mean `name`?",
            ),
            ("\nname = \"Math\"", "`math.toml` line 2: expected a plugin name of 1 to 64 characters"),
            ("[limits]\nmemory = \"64 mega\"", "`math.toml` line 2: expected a size such as `64MiB`"),
            (
                "[limits]\nmemry = 1",
                "`math.toml` line 2: unknown key `memry` in limits; did you mean `memory`?",
            ),
            (
                "[tasks.\"math.add\"]\nmax_retry = 1",
                "`math.toml` line 2: unknown key `max_retry` in task options",
            ),
            ("name = ", "`math.toml` line 1: "),
            ("name = 3", "`math.toml` line 1: invalid type: integer `3`"),
            ("\n[grants]\nenv = [\"HOME\"]", "`math.toml` line 2: a manifest can't grant anything"),
        ];
        for (text, expected) in table {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_task_table_is_laid_over_the_limits() {
        let manifest = parse(
            "name = \"math\"\ndescription = \"sums\"\n[limits]\nmemory = \"64MiB\"\ntime_limit = \"20s\"\nlog = 100\n\
             [tasks.\"math.add\"]\ntime_limit = 5\nqueue = \"fast\"\n[requests]\ndirs = [\"/data\"]\n",
        )
        .unwrap();
        let add = manifest.options("math.add");
        assert_eq!(add.time_limit, Some(Seconds(Duration::from_secs(5))));
        assert_eq!(add.memory, Some(ByteSize(64 << 20)));
        assert_eq!(add.queue.unwrap().0.as_str(), "fast");
        let mul = manifest.options("math.mul");
        assert_eq!(mul.time_limit, Some(Seconds(Duration::from_secs(20))));
        assert_eq!((mul.log_bytes, mul.queue), (Some(ByteSize(100)), None));
        assert_eq!(manifest.requests.unwrap().dirs, Some(Texts(vec!["/data".into()])));
    }

    #[test]
    fn options_for_a_task_that_is_not_there_are_refused() {
        let text = "name = \"math\"\n[tasks.\"math.ad\"]\npriority = 1\n";
        let manifest = parse(text).unwrap();
        let error =
            manifest.check_tasks(Path::new("math.toml"), text, &["math.add", "math.mul"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`math.toml` line 2: options for task `math.ad`, which the plugin does not declare; did you mean `math.add`?"
        );
        assert!(manifest.check_tasks(Path::new("math.toml"), text, &["math.ad"]).is_ok());
    }
}
