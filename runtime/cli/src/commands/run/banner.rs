//! What a worker says when it starts and when it leaves.

use rwork_plugin::{LoadReport, Plugin, Plugins};
use rwork_worker::{Summary, WorkerConfig};

use crate::config::Config;
use crate::context::Context;
use crate::drivers::Services;
use crate::printer::{Printer, Tone, tame};

/// Says what is served, from where, and which plugins can't be used: on stderr for people, as one event for programs, which
/// find the plugins in the log.
pub(super) fn show(
    context: &Context,
    config: &Config,
    worker: &WorkerConfig,
    services: &Services,
    plugins: &Plugins,
    report: &LoadReport,
) {
    if config.settings.worker_log_format == "json" {
        let snapshot = plugins.registry().snapshot();
        tracing::info!(
            node = %worker.node,
            broker = %services.broker_url,
            backend = %services.backend_url,
            concurrency = worker.concurrency,
            max_in_flight = worker.max_in_flight,
            tasks = snapshot.tasks().count(),
            "starting"
        );
        return;
    }
    let printer = &context.printer;
    let queues: Vec<&str> = worker.queues.iter().map(|queue| queue.as_str()).collect();
    printer.note("");
    printer.note(
        printer.tint_note(Tone::Strong, format!("rwork {} · {}", env!("CARGO_PKG_VERSION"), worker.node)),
    );
    let rows = [
        ("queues", queues.join(", ")),
        ("broker", services.broker_url.to_string()),
        ("results", services.backend_url.to_string()),
        ("slots", format!("{} on a CPU, {} in flight", worker.concurrency, worker.max_in_flight)),
    ];
    for (name, value) in rows {
        printer.note(format!("  {}  {value}", printer.tint_note(Tone::Faint, format!("{name:<8}"))));
    }
    printer.note("");
    for plugin in &report.loaded {
        serving(printer, plugin);
    }
    for (path, error) in &report.refused {
        printer.note(format!("  {} {}", printer.tint_note(Tone::Bad, "refused"), path.display()));
        printer.note(format!("    {}", tame(&error.chain())));
        if let Some(hint) = error.hint() {
            let hint = tame(&hint).replace('\n', "\n      ");
            printer.note(format!("    {} {hint}", printer.tint_note(Tone::Strong, "hint:")));
        }
    }
    if report.loaded.is_empty() {
        printer.note(format!(
            "  {}",
            printer.tint_note(
                Tone::Warn,
                "no plugin can be used yet; one that is copied here goes live at once"
            )
        ));
    }
    printer.note("");
}

fn serving(printer: &Printer, plugin: &Plugin) {
    let digest: String = plugin.digest.trim_start_matches("sha256:").chars().take(DIGEST_SHOWN).collect();
    let name = printer.tint_note(Tone::Good, plugin.id.as_str());
    printer.note(format!("  {name} {}", printer.tint_note(Tone::Faint, digest)));
    let width = plugin.tasks.iter().map(|task| task.name.as_str().chars().count()).max().unwrap_or_default();
    for task in &plugin.tasks {
        let line = format!("    {:<width$}  {}", task.name.as_str(), tame(&task.summary).replace('\n', " "));
        printer.note(shorten(line.trim_end()));
    }
}

/// Cuts what would not fit a line.
fn shorten(line: &str) -> String {
    if line.chars().count() <= LINE_MAX {
        return line.to_owned();
    }
    line.chars().take(LINE_MAX - 1).chain(['…']).collect()
}

/// Characters of a line of the banner: what most terminals show.
const LINE_MAX: usize = 100;
/// Characters of a digest that are shown: enough to tell versions apart.
const DIGEST_SHOWN: usize = 12;

/// Says what was done.
pub(super) fn farewell(summary: &Summary) {
    tracing::info!(
        ran = summary.ran(),
        succeeded = summary.succeeded,
        failed = summary.failed,
        retried = summary.retried,
        refused = summary.refused,
        given_back = summary.released + summary.shut_down,
        "stopped"
    );
}
