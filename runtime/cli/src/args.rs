//! The command line: global flags, and one variant for each command. The arguments of a command live beside the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Printed below every help text of the top level.
const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    the operation failed (a task failed, nothing was found)
  2    wrong usage or configuration
  3    the broker or the result backend can't be reached
  130  interrupted

Examples:
  rwork run --plugins ./plugins
  rwork call math.add 2 2 --wait
  rwork dead list";

/// Sandboxed tasks for Celery's protocol.
#[derive(Debug, Parser)]
#[command(name = "rwork", version = crate::commands::VERSION, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command accepts.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file [default: rwork.toml or .rwork.toml, found upward from here]
    #[arg(long, value_name = "PATH", global = true, env = "RWORK_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Message broker [default: embedded:./rwork.db]
    #[arg(short = 'b', long, value_name = "URL", global = true)]
    pub(crate) broker: Option<String>,
    /// Result backend [default: the broker's]
    #[arg(long, alias = "result-backend", value_name = "URL", global = true)]
    pub(crate) backend: Option<String>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// More log lines; twice: all of them
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log level: trace, debug, info, warning, error
    #[arg(short = 'l', long = "log-level", alias = "loglevel", value_name = "LEVEL", global = true)]
    pub(crate) log_level: Option<String>,
    /// Form of the log lines [default: human]
    #[arg(long, value_name = "FORM", global = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// When to colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub(crate) color: Color,
}

/// Form of the log lines: for people, or one JSON object a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Human,
    Json,
}

/// When to colour: `auto` means on a terminal, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a worker
    #[command(alias = "worker")]
    Run(Box<commands::run::Args>),
    /// Send a task, and wait for its result if asked
    Call(Box<commands::call::Args>),
    /// State and value of a task id
    Result(commands::result::Args),
    /// List, inspect and check plugins
    Plugins(commands::plugins::Args),
    /// How full each queue is
    Queues(commands::queues::Args),
    /// Delete the waiting messages of queues
    Purge(commands::purge::Args),
    /// Messages that were given up: list, show, retry, purge
    Dead(commands::dead::Args),
    /// Each setting, its value and where it comes from
    Config(commands::config::Args),
    /// Start a new plugin
    New(commands::new::Args),
    /// Compile plugins to .wasm and check them
    Build(commands::build::Args),
    /// Look for what is wrong with a setup
    Doctor(commands::doctor::Args),
    /// Measure
    Bench(commands::bench::Args),
    /// Print a script that completes rwork's commands in a shell
    Completions(commands::completions::Args),
}
