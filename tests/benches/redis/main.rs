//! rwork on Redis beside its peers on the same machine in the same run. Part of `make bench`.
//!
//! 1. `trials` finds what suits Celery's prefork pool best here.
//! 2. Round by round, so that whatever else the machine does meets all of them alike, `drain` empties the same queue by
//!    every worker, and `trips` measures a send and the wait for its result.
//! 3. `report` prints the table, each figure beside its peer or its bound.
//!
//! It knows the peers only as processes and the server only by its keys; what is measured is never inside this process,
//! the client of one round trip apart.

mod drain;
mod options;
mod peers;
mod report;
mod stage;
mod trials;
mod trips;

use std::io::Write as _;
use std::process::ExitCode;

use drain::drain;
use options::Options;
use report::{Bound, Report};
use stage::Stage;

/// Tasks per second in fresh sandboxes, results stored, acknowledged after: so many times Celery's prefork pool.
const OVER_PREFORK: f64 = 15.0;
/// The same beside the native Rust worker, which has neither sandbox nor results.
const OVER_NATIVE: f64 = 1.5;
/// Send, run, store and wake the client, in milliseconds, half of all.
const TRIP_MS: f64 = 0.5;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        say(options::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    let stage = Stage::open().await?;
    let report = measure(&stage, &options).await?;
    if let Some(path) = &options.json_file {
        report.add_to(path)?;
    }
    say(report.table());
    Ok(if options.check && !report.all_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(stage: &Stage, options: &Options) -> anyhow::Result<Report> {
    let prefork = trials::best(stage, options).await?;
    let (ours, native, solo) = (peers::rwork(), peers::native()?, peers::solo());
    let mut drains = [Vec::new(), Vec::new(), Vec::new()];
    let mut trips = [Vec::new(), Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        say(format_args!("measuring: round {round} of {}: draining …", options.rounds));
        // A peer that would take minutes is given what it does in a quarter of one, all of it at its full speed.
        let for_prefork = if options.full { options.tasks } else { options.tasks.min(prefork.tasks) };
        let work = [(&ours, options.tasks), (&prefork.peer, for_prefork), (&native, options.tasks)];
        for ((peer, tasks), rates) in work.into_iter().zip(&mut drains) {
            rates.push(drain(stage, peer, tasks).await?);
        }
        say(format_args!("measuring: round {round} of {}: round trips …", options.rounds));
        let [own, python, celery] = &mut trips;
        own.push(trips::by_rwork(stage, &ours, options.trips).await?);
        python.push(trips::by_celery(stage, &ours, options.trips).await?);
        celery.push(trips::by_celery(stage, &solo, options.trips).await?);
    }
    Ok(figures(&prefork.peer.name, drains, &trips))
}

type Rates = Vec<f64>;

fn figures(prefork: &str, drains: [Rates; 3], trips: &[Vec<trips::Trips>; 3]) -> Report {
    let [ours, slow, native] = drains;
    let [own, python, celery] = trips;
    let p50 = |of: &[trips::Trips]| of.iter().map(|trips| trips.p50).collect::<Vec<_>>();
    let p99 = |of: &[trips::Trips]| of.iter().map(|trips| trips.p99).collect::<Vec<_>>();
    let over = |of: &[f64], by: &[f64]| of.iter().zip(by).map(|(of, by)| of / by).collect::<Vec<_>>();
    let mut report = Report::default();
    let (over_prefork, over_native) = (over(&ours, &slow), over(&ours, &native));
    let ratio = over(&p50(python), &p50(celery));
    report.add("redis: rwork, fresh sandboxes, stored, acked after", "/s", ours, Bound::None);
    report.add(format!("redis: {prefork}"), "/s", slow, Bound::None);
    report.add("redis: native Rust `celery` 0.5, no sandbox, no results", "/s", native, Bound::None);
    report.add("redis: rwork to Celery prefork", "×", over_prefork, Bound::AtLeast(OVER_PREFORK));
    report.add("redis: rwork to the native Rust worker", "×", over_native, Bound::AtLeast(OVER_NATIVE));
    report.add("redis: round trip, rwork's client, p50", "ms", p50(own), Bound::AtMost(TRIP_MS));
    report.add("redis: round trip, rwork's client, p99", "ms", p99(own), Bound::None);
    report.add("redis: round trip, Python to rwork, p50", "ms", p50(python), Bound::None);
    report.add("redis: round trip, Python to Celery solo, p50", "ms", p50(celery), Bound::None);
    report.add("redis: round trip, rwork's to Celery's, p50", "×", ratio, Bound::AtMost(1.0));
    report
}

/// A line for whoever reads along. An output that can't be written to is nobody's failure.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
