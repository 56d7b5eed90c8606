//! `rwork plugins`: what a plugin directory holds, what a component is, whether a worker would take it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use rwork_plugin::{Plugin, Plugins, PluginsConfig, Registry};
use rwork_sandbox::Sandbox;
use serde_json::{Value, json};

use crate::config::{Config, show_bytes};
use crate::context::Context;
use crate::examine::{self, Examined};
use crate::failure::{Exit, Failure};
use crate::printer::{Printer, Tone, tame};
use crate::wiring;

const EXAMPLES: &str = "\
`list` and `check` load as a worker would, with the grants of rwork.toml; `inspect` needs no grants.

Examples:
  rwork plugins list
  rwork plugins inspect plugins/math/math.wasm
  rwork plugins check build/*.wasm && cp build/*.wasm /srv/plugins";

/// Digits of a digest that people compare.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Arguments of `rwork plugins`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Every plugin of a directory, with its tasks, or why it is refused
    #[command(after_help = "Examples:\n  rwork plugins list\n  rwork plugins list /srv/plugins --json")]
    List {
        /// Plugin directory [default: the setting `plugins_dir`]
        directory: Option<PathBuf>,
    },
    /// What components are: size, imports, memory, tasks
    #[command(after_help = "Examples:\n  rwork plugins inspect plugins/web/web.wasm")]
    Inspect {
        /// Component files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Whether a worker with this configuration would load these files; exit status 1 if not
    #[command(after_help = "Examples:\n  rwork plugins check plugins/web/web.wasm")]
    Check {
        /// Component files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs one of them.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let sandbox = examine::sandbox(&context.io)?;
    match args.action {
        Action::List { directory } => list(directory, sandbox, context).await,
        Action::Inspect { files } => inspect(&files, &sandbox, context).await,
        Action::Check { files } => check(&files, &sandbox, context).await,
    }
}

async fn list(directory: Option<PathBuf>, sandbox: Sandbox, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let directory = directory.unwrap_or_else(|| config.resolve("plugins_dir", &config.settings.plugins_dir));
    let (plugins, report) = Plugins::open(plugins_config(config, &directory)?, sandbox).await?;
    if context.printer.json() {
        context.printer.document(&status_documents(plugins.registry()))?;
    } else {
        context.printer.table(&["PLUGIN", "TASKS", "SIZE", "DIGEST", "FILE"], report.loaded.iter().map(row));
        for (path, error) in &report.refused {
            complain(&context.printer, path, error);
        }
    }
    Ok(if report.refused.is_empty() { Exit::Done } else { Exit::Failed }.into())
}

async fn inspect(files: &[PathBuf], sandbox: &Sandbox, context: &Context) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for file in files {
        found.push(examine::examine(sandbox, file).await?);
    }
    if context.printer.json() {
        context.printer.document(&found.iter().map(Examined::document).collect::<Vec<_>>())?;
    } else {
        found.iter().for_each(|examined| examined.print(&context.printer));
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(files: &[PathBuf], sandbox: &Sandbox, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let (mut documents, mut refused) = (Vec::new(), 0);
    for file in files {
        let folder = file.parent().unwrap_or(Path::new("."));
        let settings = plugins_config(config, folder)?;
        match Plugins::check(&settings, sandbox.clone(), file).await {
            Ok(plugin) => {
                if !context.printer.json() {
                    let tasks = count(plugin.tasks.len());
                    let good = context.printer.tint(Tone::Good, "ok");
                    context.printer.line(format!(
                        "{good}  {}  {tasks}  {}",
                        file.display(),
                        short(&plugin.digest)
                    ));
                    warn(sandbox, file, &context.printer).await?;
                }
                documents.push(plugin_document(&plugin));
            }
            Err(error) => {
                refused += 1;
                documents.push(json!({ "path": file, "problem": error.chain() }));
                if !context.printer.json() {
                    complain(&context.printer, file, &error);
                }
            }
        }
    }
    if context.printer.json() {
        context.printer.document(&documents)?;
    }
    Ok(if refused == 0 { Exit::Done } else { Exit::Failed }.into())
}

/// What would make a plugin slow, though a worker takes it.
async fn warn(sandbox: &Sandbox, file: &Path, printer: &Printer) -> anyhow::Result<()> {
    for warning in examine::examine(sandbox, file).await?.warnings() {
        printer.warning(warning);
    }
    Ok(())
}

fn plugins_config(config: &Config, directory: &Path) -> anyhow::Result<PluginsConfig> {
    if !directory.as_os_str().is_empty() && !directory.is_dir() {
        let message = format!("expected a directory of plugins, got `{}`", directory.display());
        return Err(Failure::usage(message).hint("name one: `rwork plugins list DIR`").into());
    }
    Ok(PluginsConfig { directory: directory.to_owned(), ..wiring::plugins_config(config)? })
}

fn row(plugin: &Arc<Plugin>) -> Vec<String> {
    let tasks: Vec<&str> = plugin.tasks.iter().map(|task| task.name.as_str()).collect();
    vec![
        plugin.id.to_string(),
        tasks.join(" "),
        show_bytes(plugin.size_bytes),
        short(&plugin.digest).to_owned(),
        plugin.path.display().to_string(),
    ]
}

fn count(tasks: usize) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

fn short(digest: &str) -> &str {
    digest.get(..DIGEST_SHOWN).unwrap_or(digest)
}

fn complain(printer: &Printer, path: &Path, error: &rwork_plugin::Error) {
    printer.complaint(format!("{} {}", printer.tint_note(Tone::Bad, "refused"), path.display()));
    printer.complaint(format!("  {}", tame(&error.chain()).replace('\n', "\n  ")));
    if let Some(hint) = error.hint() {
        printer.complaint(format!(
            "  {} {}",
            printer.tint_note(Tone::Strong, "hint:"),
            hint.replace('\n', "\n  ")
        ));
    }
}

fn status_documents(registry: &Registry) -> Vec<Value> {
    let snapshot = registry.snapshot();
    let document = |status: &rwork_plugin::PluginStatus| {
        let mut document = match &status.serving {
            Some(plugin) => plugin_document(plugin),
            None => json!({ "path": status.path }),
        };
        if let (Some(problem), Some(fields)) = (&status.problem, document.as_object_mut()) {
            fields.insert("problem".to_owned(), json!(problem.chain()));
            fields.insert("hint".to_owned(), json!(problem.hint()));
        }
        document
    };
    snapshot.plugins.iter().map(document).collect()
}

fn plugin_document(plugin: &Plugin) -> Value {
    json!({
        "name": plugin.id.as_str(),
        "path": plugin.path,
        "manifest": plugin.manifest,
        "description": plugin.description,
        "sdk": plugin.sdk,
        "digest": &*plugin.digest,
        "size_bytes": plugin.size_bytes,
        "from_cache": plugin.from_cache,
        "tasks": plugin.tasks.iter().map(|task| json!({ "name": task.name.as_str(), "summary": task.summary })).collect::<Vec<_>>(),
    })
}
