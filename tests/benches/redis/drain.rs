//! Tasks per second: how fast a worker that is up and warm empties a full queue.
//!
//! The clock runs from the first message that is gone from the queue to the moment when nothing is left, neither in the
//! queue nor taken and unfinished. Both ends are seen from outside, in the server, and are the same for every worker: a
//! poll of a second that some of them make is nobody's loss, and no worker counts for itself.

use std::time::Instant;

use crate::peers::Peer;
use crate::stage::{PAUSE, Stage};

/// Enough for every process of a pool to have had its share.
const WARM_UP: usize = 1_000;

/// Tasks per second.
pub(crate) async fn drain(stage: &Stage, peer: &Peer, tasks: usize) -> anyhow::Result<f64> {
    let mut serving = stage.serve(peer, WARM_UP).await?;
    let ids = stage.stage(tasks).await?;
    stage.reveal().await?;
    let first = loop {
        let left = stage.left(peer).await?;
        if left.queued < tasks {
            break left.all();
        }
        serving.lives(peer)?;
        tokio::time::sleep(PAUSE).await;
    };
    let began = Instant::now();
    while stage.left(peer).await?.all() > 0 {
        serving.lives(peer)?;
        tokio::time::sleep(PAUSE).await;
    }
    let rate = first as f64 / began.elapsed().as_secs_f64();
    if peer.stores {
        stage.verify(&ids).await?;
    }
    serving.end()?;
    Ok(rate)
}
