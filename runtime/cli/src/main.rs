//! The `rwork` command: arguments, configuration, environment, signals, and which drivers exist.
//!
//! Everything else is done by the crates below; this one wires them. It is the only one that prints, reads configuration
//! files or ends the process, and it never looks into a message.

mod args;
mod commands;
mod config;
mod context;
mod drivers;
mod examine;
mod failure;
mod logging;
mod open_files;
mod printer;
mod render;
mod report;
mod signers;
mod waiting;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::Exit;
use crate::printer::Printer;

/// Messages are allocated on the I/O thread and freed on guest threads: with the system's allocator they wait for each
/// other there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Printer::new(cli.global.json, cli.global.color, cli.global.quiet);
    let ended = start(cli, &printer);
    match ended {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            failure::exit_of(&error).into()
        }
    }
}

/// Builds what every command stands on, then runs the command to its end.
fn start(cli: Cli, printer: &Printer) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("rwork-io")
        .enable_all()
        .build()?;
    let context = Context::new(cli.global, printer.clone(), runtime.handle().clone());
    let ended = runtime.block_on(commands::run(cli.command, &context));
    // A blocking task that hangs must not keep the process after the command has ended.
    runtime.shutdown_background();
    ended
}

/// Threads for broker I/O, leases and timers. Guests run on threads of their own, so that one is enough and a machine with
/// two cores is not crowded.
const IO_THREADS: usize = 1;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
