//! rwork beside its peers on the same machine in the same run, on each broker. Part of `make bench`.
//!
//! 1. `trials` finds what suits Celery best here.
//! 2. Round by round, so that whatever else the machine does meets all of them alike, `drain` empties the same queue by
//!    every worker, and `trips` measures a send and the wait for its result. What is special to a broker is in its module,
//!    with its bounds.
//! 3. `report` prints the table, each figure beside its peer or its bound.
//!
//! It knows the peers only as processes and what they do only by the servers; what is measured is never inside this
//! process, the client of one round trip apart.

mod drain;
mod ground;
mod options;
mod peers;
mod rabbitmq;
mod redis;
mod report;
mod results;
mod trials;
mod trips;

use std::io::Write as _;
use std::process::ExitCode;

use options::Options;
use report::Report;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        say(options::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    let mut report = Report::default();
    if options.measures("redis") {
        redis::measure(&options, &mut report).await?;
    }
    if options.measures("rabbitmq") {
        rabbitmq::measure(&options, &mut report).await?;
    }
    if let Some(path) = &options.json_file {
        report.add_to(path)?;
    }
    say(report.table());
    Ok(if options.check && !report.all_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A line for whoever reads along. An output that can't be written to is nobody's failure.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
