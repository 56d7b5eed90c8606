//! `rwork doctor`: what is wrong with a setup, and what to change.

mod check;
mod guarantees;
mod host;
mod latency;
mod rabbitmq;
mod redis;
mod services;
mod tasks;

use std::process::ExitCode;

use crate::context::Context;
use crate::failure::Exit;
use check::{Check, State};

const EXAMPLES: &str = "\
Looks at the configuration, the broker, the result backend, the plugins, this machine, and the tools for building plugins.
Changes nothing but to open what a worker would open. Exit status 1 when something keeps a worker from working.

Examples:
  rwork doctor
  rwork doctor --broker embedded:/srv/rwork.db
  rwork doctor --broker redis://localhost:6379/0
  rwork doctor --broker amqp://localhost
  rwork doctor --json | jq '.[] | select(.state != \"ok\")'
  rwork doctor --guarantees";

/// Arguments of `rwork doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What this configuration promises, and what would make it promise more
    #[arg(long)]
    guarantees: bool,
}

/// Runs every check and prints a line for each.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if args.guarantees {
        return guarantees::run(context.config()?, context).await;
    }
    let mut checks = Vec::new();
    match context.config() {
        Ok(config) => {
            let file = config.file.as_deref().map_or("none".into(), |path| path.to_string_lossy());
            checks.push(Check::ok("configuration", format!("file: {file}")));
            checks.extend(
                config.warnings.iter().map(|warning| Check::warning("configuration", warning.clone(), "")),
            );
            checks.extend(services::checks(config).await);
            let (sandbox, found) = host::checks(context, config);
            checks.extend(found);
            if let Some(sandbox) = sandbox {
                checks.extend(tasks::checks(config, sandbox).await);
            }
        }
        Err(error) => checks.push(Check::failure("configuration", &error)),
    }
    checks.push(tasks::toolchain());
    print(&checks, context)?;
    let failed = checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed { Exit::Failed } else { Exit::Done }.into())
}

fn print(checks: &[Check], context: &Context) -> anyhow::Result<()> {
    if context.printer.json() {
        return context.printer.document(&checks.iter().map(Check::document).collect::<Vec<_>>());
    }
    for check in checks {
        check.print(&context.printer);
    }
    Ok(())
}
