//! The configuration: defaults, then `rwork.toml`, then `RWORK_*`, then flags; the later one wins.
//!
//! In order: find the file ([`find`]); read it with its lines ([`document`]); put the layers on each other ([`merge`]),
//! each value with its origin. An unknown key is an error with file, line and "did you mean". Nothing here opens a driver.

mod deployment;
mod document;
mod grants;
mod parameters;
mod raw;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use document::{Entry, Table};
use grants::Lookup;
use raw::Raw;
use rwork_plugin::Deployment;

pub(crate) use parameters::{AMQP, BACKEND_TRANSPORT, BROKER_TRANSPORT, EMBEDDED, Parameter, REDIS};
pub(crate) use raw::{parse_bytes, show_bytes};
pub(crate) use settings::{KEYS, Settings};

use crate::args::{Global, LogFormat};
use crate::failure::Failure;

/// Names that the file may have, first that exists wins.
const FILE_NAMES: &[&str] = &["rwork.toml", ".rwork.toml"];
/// Tables that the file may have beside the settings and those of [`parameters`].
const TABLES: [&str; 3] = ["plugins", "tasks", "limits"];

/// One setting that a flag sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// The setting.
    pub(crate) key: &'static str,
    /// The flag as the user knows it (`--concurrency`).
    pub(crate) flag: &'static str,
    /// Its value.
    pub(crate) value: String,
}

impl Flag {
    /// A flag that was given.
    pub(crate) fn new(key: &'static str, flag: &'static str, value: impl fmt::Display) -> Self {
        Self { key, flag, value: value.to_string() }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// The file, with the line.
    File(PathBuf, usize),
    /// A variable of the environment.
    Env(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file it was read from.
    pub(crate) file: Option<PathBuf>,
    /// The settings.
    pub(crate) settings: Settings,
    /// Where each setting comes from, in the order of [`KEYS`].
    pub(crate) origins: Vec<Origin>,
    /// Grants, options of single tasks, ceilings.
    pub(crate) deployment: Arc<Deployment>,
    /// What is said to single drivers, in the order of the layers.
    pub(crate) parameters: Vec<Parameter>,
    /// Things that look wrong but stop nothing.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// A relative path as whoever wrote it meant it: from the file's folder when the file says it, else from here.
    pub(crate) fn resolve(&self, key: &str, path: &str) -> PathBuf {
        match self.origin(key) {
            Origin::File(file, _) => grants::folder(file).join(path),
            _ => PathBuf::from(path),
        }
    }

    /// The error about a setting that does not exist.
    pub(crate) fn unknown_key(&self, name: &str) -> Failure {
        let failure = Failure::usage(format!("unknown setting `{name}`"));
        let keys: Vec<String> = self.parameters.iter().map(Parameter::key).collect();
        failure
            .hint(did_you_mean(name, KEYS.iter().map(|key| key.name).chain(keys.iter().map(String::as_str))))
    }

    /// What is said to one driver.
    pub(crate) fn parameters(&self, table: &str) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(move |parameter| parameter.table == table)
    }

    /// Where a setting comes from.
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        let place = KEYS.iter().position(|key| key.name == name);
        place.and_then(|place| self.origins.get(place)).unwrap_or(&Origin::Default)
    }
}

/// Reads the file, the environment and the flags.
///
/// # Errors
/// When the file can't be read, is not TOML, has an unknown key, or a value does not fit.
pub(crate) fn load(global: &Global, flags: &[Flag]) -> anyhow::Result<Config> {
    let path = match &global.config {
        Some(path) => Some(path.clone()),
        None => find(&std::env::current_dir()?),
    };
    let text = path.as_deref().map(read).transpose()?;
    let mut environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("RWORK_"))
        .collect();
    environment.sort();
    let mut all = global_flags(global);
    all.extend_from_slice(flags);
    let file = path.as_deref().zip(text.as_deref());
    let variables = |name: &str| std::env::var(name).ok();
    Ok(merge(file, &environment, &all, &variables)?)
}

/// Upward from a directory to the first one that has a file.
fn find(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .flat_map(|directory| FILE_NAMES.iter().map(|name| directory.join(name)))
        .find(|path| path.is_file())
        .map(|path| path.strip_prefix(start).map(Path::to_path_buf).unwrap_or(path))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("failed to read the configuration `{}`", path.display())).because(error)
    })
}

fn global_flags(global: &Global) -> Vec<Flag> {
    let mut flags = Vec::new();
    if let Some(url) = &global.broker {
        flags.push(Flag::new("broker_url", "--broker", url));
    }
    if let Some(url) = &global.backend {
        flags.push(Flag::new("result_backend", "--backend", url));
    }
    match (&global.log_level, global.verbose, global.quiet) {
        (Some(level), ..) => flags.push(Flag::new("worker_log_level", "--log-level", level)),
        (None, 1, _) => flags.push(Flag::new("worker_log_level", "-v", "debug")),
        (None, 2.., _) => flags.push(Flag::new("worker_log_level", "-vv", "trace")),
        (None, _, true) => flags.push(Flag::new("worker_log_level", "--quiet", "error")),
        _ => {}
    }
    if let Some(form) = global.log_format {
        let word = if form == LogFormat::Json { "json" } else { "human" };
        flags.push(Flag::new("worker_log_format", "--log-format", word));
    }
    flags
}

/// Puts the layers on each other.
fn merge(
    file: Option<(&Path, &str)>,
    environment: &[(String, String)],
    flags: &[Flag],
    variables: Lookup<'_>,
) -> Result<Config, Failure> {
    let mut config = Config {
        file: file.map(|(path, _)| path.to_path_buf()),
        settings: Settings::default(),
        origins: vec![Origin::Default; KEYS.len()],
        deployment: Arc::default(),
        parameters: Vec::new(),
        warnings: Vec::new(),
    };
    let mut tables = deployment::Tables::default();
    if let Some((path, text)) = file {
        let table = document::parse(text).map_err(|wrong| {
            Failure::usage(format!("{}:{}: {}", path.display(), wrong.line, wrong.message))
        })?;
        take_file(&mut config, path, &table)?;
        tables = deployment::read(path, text, &table, variables)?;
    }
    for (name, value) in environment {
        take_variable(&mut config, name, value)?;
    }
    for flag in flags {
        set(&mut config, flag.key, &Raw::Word(&flag.value), Origin::Flag(flag.flag))?;
    }
    parameters::check(&config.parameters)?;
    config.deployment = tables.deployment(&config.settings);
    Ok(config)
}

fn take_file(config: &mut Config, path: &Path, table: &Table) -> Result<(), Failure> {
    for Entry { key, line, item } in table {
        if let Some(table) = parameters::TABLES.into_iter().find(|table| table == key) {
            config.parameters.extend(parameters::read(path, table, item)?);
        } else if !TABLES.contains(&key.as_str()) {
            set(config, key, &Raw::Toml(&item.value), Origin::File(path.to_path_buf(), *line))?;
        }
    }
    Ok(())
}

/// A variable that no setting has is not an error, since `RWORK_` may be used by others; one that looks like a slip is
/// warned about.
fn take_variable(config: &mut Config, name: &str, value: &str) -> Result<(), Failure> {
    if let Some(key) = KEYS.iter().find(|key| key.env() == name) {
        return set(config, key.name, &Raw::Word(value), Origin::Env(name.to_owned()));
    }
    if let Some(parameter) = parameters::variable(name, value) {
        parameters::put(&mut config.parameters, parameter);
        return Ok(());
    }
    let lower = name.trim_start_matches("RWORK_").to_ascii_lowercase();
    if let Some(near) = nearest(&lower, KEYS.iter().map(|key| key.name)) {
        config
            .warnings
            .push(format!("`{name}` is no setting; did you mean `RWORK_{}`?", near.to_ascii_uppercase()));
    }
    Ok(())
}

fn set(config: &mut Config, name: &str, raw: &Raw<'_>, origin: Origin) -> Result<(), Failure> {
    let Some(place) = KEYS.iter().position(|key| key.name == name) else {
        let known = KEYS.iter().map(|key| key.name).chain(TABLES).chain(parameters::TABLES);
        return Err(unknown(&origin, "setting", name, known));
    };
    let Some(key) = KEYS.get(place) else { return Ok(()) };
    (key.set)(&mut config.settings, raw).map_err(|expected| wrong(&origin, name, &expected, raw))?;
    if let Some(slot) = config.origins.get_mut(place) {
        *slot = origin;
    }
    Ok(())
}

/// A value that does not fit.
fn wrong(origin: &Origin, name: &str, expected: &str, raw: &Raw<'_>) -> Failure {
    Failure::usage(format!("{origin}: expected `{name}` to be {expected}, got `{}`", raw.shown()))
}

/// A key that nobody knows, with the nearest that is known.
fn unknown<'a>(origin: &Origin, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    Failure::usage(format!("{origin}: unknown {what} `{name}`")).hint(did_you_mean(name, known))
}

fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`rwork config` lists every setting".to_owned(),
    }
}

/// How alike two names must be for "did you mean" (Jaro–Winkler, 0 to 1): below it suggestions look random.
const ALIKE: f64 = 0.85;

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
