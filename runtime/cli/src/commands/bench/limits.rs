//! How late limits are: the hard one on a guest that computes, the soft one on a guest that asks.

use std::time::Duration;

use rwork_protocol::TaskName;
use rwork_sandbox::{Invocation, Limits, Outcome, Stop};
use rwork_worker::Executor;

use super::Bench;
use super::invocations::Rig;
use super::report::{Bound, Report};
use super::stats::percentile_ms;
use crate::failure::Failure;

/// Not a multiple of the tick, so that ticks fall anywhere in it.
const LIMIT: Duration = Duration::from_millis(53);

/// Samples of one round; the 99th percentile is the worst of them.
const SAMPLES: usize = 100;

pub(crate) async fn measure(
    bench: &Bench<'_>,
    spin: Option<&TaskName>,
    polite: Option<&TaskName>,
    report: &mut Report,
) -> anyhow::Result<()> {
    if let Some(task) = spin {
        let limits = Limits { hard_time: Some(LIMIT), ..Limits::default() };
        let rounds =
            rounds(bench, task, limits, |outcome| matches!(outcome, Outcome::HardTimeLimit { .. })).await?;
        report.add("hard limit, busy loop: overshoot, p99", "ms", rounds, Bound::AtMost(20.0));
    }
    if let Some(task) = polite {
        let limits = Limits { soft_time: Some(LIMIT), ..Limits::default() };
        let rounds =
            rounds(bench, task, limits, |outcome| matches!(outcome, Outcome::SoftTimeLimit { .. })).await?;
        report.add("soft limit, polling guest: noticed after, p99", "ms", rounds, Bound::AtMost(5.0));
    }
    Ok(())
}

async fn rounds(
    bench: &Bench<'_>,
    task: &TaskName,
    limits: Limits,
    expected: impl Fn(&Outcome) -> bool,
) -> anyhow::Result<Vec<f64>> {
    let rig = Rig::of(bench.context, &bench.plugins, task.as_str(), "[]", 1).await?;
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let mut samples = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let invocation =
                Invocation { limits: limits.clone(), stop: Stop::default(), ..rig.invocation.clone() };
            let slot = rig.executor.admit(&rig.task).await;
            let ended = rig.executor.execute(slot, &rig.task, invocation).await;
            if !expected(&ended.outcome) {
                let message = format!("`{task}` did not meet its limit");
                return Err(Failure::failed(message).because(anyhow::anyhow!("{:?}", ended.outcome)).into());
            }
            samples.push(ended.usage.wall.saturating_sub(LIMIT));
        }
        rounds.push(percentile_ms(&mut samples, 99.0));
    }
    Ok(rounds)
}
