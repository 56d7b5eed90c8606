//! `rwork bench`: what this machine reaches, measured in one run, each figure beside its peer or its bound.

mod idle;
mod invocations;
mod limits;
mod load;
mod machine;
mod queue;
mod report;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use rwork_protocol::TaskName;

use crate::commands::seconds;
use crate::context::Context;
use crate::failure::Failure;
use report::Report;

const EXAMPLES: &str = "\
Each figure is the median of several rounds, with the lowest and the highest. Bounds are those that rwork promises on a
machine with two cores.

Examples:
  rwork bench --plugins ./plugins --task math.add 2 2
  rwork bench --plugins ./plugins --task math.add 2 2 --only invocations --rounds 9
  rwork bench --plugins ./plugins --task math.add 2 2 --json-file bench.json";

/// Tasks sent in one round of the queue's drain.
const TASKS: usize = 100_000;

/// Arguments of `rwork bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Plugin directory
    #[arg(long, value_name = "DIR")]
    plugins: PathBuf,
    /// Task to measure with; the less it does, the more is seen of rwork
    #[arg(long, value_name = "NAME")]
    task: TaskName,
    /// Arguments of the task, each one JSON value or plain text
    args: Vec<String>,
    /// A task that computes for ever, for the hard limit's overshoot
    #[arg(long, value_name = "NAME")]
    spin: Option<TaskName>,
    /// A task that computes for ever but asks whether to stop, for the soft limit
    #[arg(long, value_name = "NAME")]
    polite: Option<TaskName>,
    /// Measure only this
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a round of invocations, in seconds
    #[arg(long, default_value = "1", value_parser = seconds)]
    time: Duration,
    /// Tasks of a round of the queue
    #[arg(long, default_value_t = TASKS, value_name = "COUNT")]
    tasks: usize,
    /// Write the figures there as JSON, too
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Exit with status 1 when a bound is missed
    #[arg(long)]
    check: bool,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Fresh invocations in this process, against a bare engine loop
    Invocations,
    /// Hard and soft time limits
    Limits,
    /// Loading a plugin from the cache
    Load,
    /// Draining a queue of the embedded broker, and its round trip
    Queue,
    /// What an idle worker takes
    Idle,
}

/// What all parts are handed.
struct Bench<'a> {
    context: &'a Context,
    plugins: PathBuf,
    task: TaskName,
    /// Encoded JSON array.
    args: String,
    rounds: u32,
    time: Duration,
    tasks: usize,
}

/// Measures part by part and prints the table.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if !args.plugins.is_dir() {
        let message = format!("expected a directory of plugins, got `{}`", args.plugins.display());
        return Err(Failure::usage(message).hint("`rwork build` makes plugins").into());
    }
    let bench = Bench {
        context,
        plugins: args.plugins.canonicalize()?,
        task: args.task.clone(),
        args: encode(&args.args)?,
        rounds: args.rounds,
        time: args.time,
        tasks: args.tasks,
    };
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let mut report = Report::new(machine::describe());
    if wanted(Part::Invocations) {
        bench.say("fresh invocations");
        invocations::measure(&bench, &mut report).await?;
    }
    if wanted(Part::Limits) && (args.spin.is_some() || args.polite.is_some()) {
        bench.say("time limits");
        limits::measure(&bench, args.spin.as_ref(), args.polite.as_ref(), &mut report).await?;
    }
    if wanted(Part::Load) {
        bench.say("plugin load");
        load::measure(&bench, &mut report).await?;
    }
    if wanted(Part::Queue) {
        bench.say("embedded queue, two processes");
        queue::measure(&bench, &mut report).await?;
    }
    if wanted(Part::Idle) {
        bench.say("idle worker");
        idle::measure(&bench, &mut report).await?;
    }
    if let Some(path) = &args.json_file {
        std::fs::write(path, serde_json::to_string_pretty(&report.document())?).map_err(|error| {
            Failure::failed(format!("failed to write `{}`", path.display())).because(error)
        })?;
    }
    report.print(&context.printer)?;
    Ok(if args.check && !report.all_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Bench<'_> {
    fn say(&self, what: &str) {
        self.context.printer.note(format!("measuring: {what} …"));
    }
}

/// The arguments as one JSON array.
fn encode(args: &[String]) -> anyhow::Result<String> {
    let value = |text: &String| {
        serde_json::from_str::<serde_json::Value>(text)
            .unwrap_or_else(|_| serde_json::Value::String(text.clone()))
    };
    Ok(serde_json::to_string(&args.iter().map(value).collect::<Vec<_>>())?)
}
