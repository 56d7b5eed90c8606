//! Log lines, through `tracing`: for people on a terminal, one JSON object a line on request. Always on stderr.
//!
//! Task id and name are fields of the worker's spans and events; this module only lays them out. What a guest wrote
//! arrives free of control characters, and the formatter escapes what could still move a terminal's cursor.

use std::fmt;

use chrono::Local;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::config::Config;
use crate::failure::Failure;
use crate::printer::Printer;

/// Levels by Celery's names and by ours, with the filter that each stands for: rwork's own crates at that level,
/// libraries only when something is off. The AMQP library calls every closed connection an error; what it tells, the driver
/// tells in its own words.
const LEVELS: &[(&str, &str)] = &[
    ("trace", "trace"),
    ("debug", "info,rwork=debug,lapin=off"),
    ("info", "warn,rwork=info,lapin=off"),
    ("warning", "warn,lapin=off"),
    ("warn", "warn,lapin=off"),
    ("error", "error,lapin=off"),
    ("critical", "error,lapin=off"),
    ("fatal", "error,lapin=off"),
    ("off", "off"),
];

/// Starts the log of this process, once.
///
/// # Errors
/// When the level is neither a level nor a filter.
pub(crate) fn start(config: &Config, printer: &Printer) -> anyhow::Result<()> {
    let filter = filter(&config.settings.worker_log_level).map_err(|expected| {
        Failure::usage(format!(
            "{}: expected `worker_log_level` to be {expected}, got `{}`",
            config.origin("worker_log_level"),
            config.settings.worker_log_level
        ))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if config.settings.worker_log_format == "json" {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        lines.with_ansi(printer.stderr_colored()).with_timer(LocalTime).with_target(false).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("failed to start the log: {error}"))
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let known = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(level));
    if let Some((_, directives)) = known {
        return Ok(EnvFilter::new(directives));
    }
    let expected =
        || "trace, debug, info, warning, error, or a filter such as `info,rwork_worker=debug`".to_owned();
    if !level.contains(['=', ',']) {
        return Err(expected());
    }
    level.parse().map_err(|_| expected())
}

/// `2026-11-21 03:15:00.123` of this machine's zone: what stands on the clock of whoever reads it.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Local::now().format("%Y-%m-%d %H:%M:%S%.3f"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_celerys_or_filters() {
        assert_eq!(filter("INFO").unwrap().to_string(), "rwork=info,lapin=off,warn");
        assert!(filter("info,rwork_worker=debug").is_ok());
        assert!(filter("loud").unwrap_err().starts_with("trace, debug"));
        assert!(filter("a=b=c").is_err());
    }
}
