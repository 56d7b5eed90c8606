//! What a worker takes while there is nothing to do.

use std::fs;
use std::time::{Duration, Instant};

use super::Bench;
use super::machine::field;
use super::queue::Stage;
use super::report::{Bound, Report};
use crate::failure::Failure;

/// Long enough that one clock tick of 10 ms is a tenth of a percent.
const WINDOW: Duration = Duration::from_secs(10);

/// After the last task: timers of a busy worker run out.
const CALM: Duration = Duration::from_secs(2);

pub(crate) async fn measure(bench: &Bench<'_>, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::open(bench).await?;
    let process = stage.worker.id().ok_or_else(|| Failure::failed("the worker of the benchmark ended"))?;
    tokio::time::sleep(CALM).await;
    let (started, before) = (Instant::now(), cpu_ticks(process)?);
    tokio::time::sleep(WINDOW).await;
    let ticks = cpu_ticks(process)? - before;
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let share = seconds / started.elapsed().as_secs_f64() * 100.0;
    let resident = resident_mib(process)?;
    stage.close().await?;
    report.add("idle worker: resident memory", "MiB", vec![resident], Bound::AtMost(40.0));
    report.add("idle worker: of one core", "%", vec![share], Bound::AtMost(0.5));
    Ok(())
}

/// User and system time of a process, in clock ticks (fields 14 and 15 of `/proc/PID/stat`).
fn cpu_ticks(process: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let unreadable = || Failure::failed(format!("`/proc/{process}/stat` reads differently here"));
    // The command's name, in parentheses, may contain anything.
    let (_, rest) = text.rsplit_once(')').ok_or_else(unreadable)?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    Ok(number(11).zip(number(12)).map(|(user, system)| user + system).ok_or_else(unreadable)?)
}

fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/status");
    let kib = field(&path, "VmRSS").and_then(|value| value.trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.ok_or_else(|| Failure::failed(format!("`{path}` reads differently here")))? / 1024.0)
}
