//! Tasks per second: how fast a worker that is up and warm empties a full queue.
//!
//! The clock runs from the first message that is gone from the queue to the moment when nothing is left, neither in the
//! queue nor taken and unfinished. Both ends are seen from outside, in the server, and are the same for every worker: a
//! poll of a second that some of them make is nobody's loss.

use std::time::Instant;

use crate::ground::Ground;
use crate::peers::Peer;

/// Enough for every process of a pool to have had its share.
const WARM_UP: usize = 1_000;

/// One round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// Tasks per second.
    pub(crate) rate: f64,
    /// CPU time of the worker's own process for a task, in microseconds; its children's is not in it.
    pub(crate) cpu_us: f64,
}

pub(crate) async fn drain(ground: &impl Ground, peer: &Peer, tasks: usize) -> anyhow::Result<Drain> {
    let mut serving = ground.serve(peer, WARM_UP).await?;
    let idle = serving.cpu()?;
    let ids = ground.fill(&serving, tasks).await?;
    let first = loop {
        let left = ground.left(peer).await?;
        if left.queued < tasks {
            break left.all();
        }
        serving.lives(peer)?;
        tokio::time::sleep(ground.pause()).await;
    };
    let began = Instant::now();
    ground.done(peer, &mut serving).await?;
    let rate = first as f64 / began.elapsed().as_secs_f64();
    let cpu = serving.cpu()?.saturating_sub(idle);
    if peer.stores {
        ground.verify(&ids).await?;
    }
    serving.end()?;
    Ok(Drain { rate, cpu_us: cpu.as_secs_f64() * 1e6 / tasks as f64 })
}

/// Of each round.
pub(crate) fn rates(rounds: &[Drain]) -> Vec<f64> {
    rounds.iter().map(|drain| drain.rate).collect()
}

/// Of each round.
pub(crate) fn cpu(rounds: &[Drain]) -> Vec<f64> {
    rounds.iter().map(|drain| drain.cpu_us).collect()
}
