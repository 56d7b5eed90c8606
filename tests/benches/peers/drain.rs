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

/// Tasks per second.
pub(crate) async fn drain(ground: &impl Ground, peer: &Peer, tasks: usize) -> anyhow::Result<f64> {
    let mut serving = ground.serve(peer, WARM_UP).await?;
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
    if peer.stores {
        ground.verify(&ids).await?;
    }
    serving.end()?;
    Ok(rate)
}
