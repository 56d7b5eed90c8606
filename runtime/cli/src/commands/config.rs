//! `rwork config`: each setting, its effective value and where it comes from.

use std::process::ExitCode;

use serde_json::json;

use crate::config::{Config, KEYS, Origin};
use crate::context::Context;
use crate::printer::Tone;

const EXAMPLES: &str = "\
Defaults, then rwork.toml, then RWORK_* of the environment, then flags; the later one wins.

Examples:
  rwork config
  rwork config worker_concurrency
  RWORK_WORKER_CONCURRENCY=8 rwork config --changed";

/// Arguments of `rwork config`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this setting; prints its value alone
    key: Option<String>,
    /// Only what is not a default
    #[arg(long)]
    changed: bool,
    /// Say what each setting means
    #[arg(long)]
    explain: bool,
}

struct Line {
    name: String,
    value: String,
    origin: Origin,
    help: &'static str,
}

/// What `--explain` says of a driver's own parameter.
const DRIVERS: &str = "known to the driver; see docs/configuration.md";

/// Prints the settings.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let mut lines = lines(config);
    if let Some(key) = &args.key {
        lines.retain(|line| line.name == *key);
        let line = lines.first().ok_or_else(|| config.unknown_key(key))?;
        if !context.printer.json() {
            context.printer.line(&line.value);
            return Ok(ExitCode::SUCCESS);
        }
    }
    if args.changed {
        lines.retain(|line| line.origin != Origin::Default);
    }
    if context.printer.json() {
        let settings: Vec<_> = lines
            .iter()
            .map(|line| json!({"key": line.name, "value": line.value, "origin": line.origin.to_string(), "meaning": line.help}))
            .collect();
        let file = config.file.as_ref().map(|path| path.display().to_string());
        context.printer.document(&json!({"file": file, "settings": settings}))?;
    } else {
        print(&args, context, config, &lines);
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(config: &Config) -> Vec<Line> {
    let settings = KEYS.iter().map(|key| Line {
        name: key.name.to_owned(),
        value: (key.show)(&config.settings),
        origin: config.origin(key.name).clone(),
        help: key.help,
    });
    let parameters = config.parameters.iter().map(|parameter| Line {
        name: parameter.key(),
        value: parameter.shown().to_owned(),
        origin: parameter.origin.clone(),
        help: DRIVERS,
    });
    settings.chain(parameters).collect()
}

fn print(args: &Args, context: &Context, config: &Config, lines: &[Line]) {
    let printer = &context.printer;
    match &config.file {
        Some(path) => printer.note(printer.tint_note(Tone::Faint, format!("read from {}", path.display()))),
        None => printer.note(printer.tint_note(Tone::Faint, "no rwork.toml found; defaults apply")),
    }
    for warning in &config.warnings {
        printer.warning(warning);
    }
    let head: &[&str] =
        if args.explain { &["KEY", "VALUE", "FROM", "MEANING"] } else { &["KEY", "VALUE", "FROM"] };
    printer.table(
        head,
        lines.iter().map(|line| {
            let value = if line.value.is_empty() { "-".to_owned() } else { line.value.clone() };
            let mut row = vec![line.name.clone(), value, line.origin.to_string()];
            if args.explain {
                row.push(line.help.to_owned());
            }
            row
        }),
    );
}
