//! What suits Celery's prefork pool best on this machine: short drains before the rounds, of which the fastest is the peer.
//!
//! Whatever else takes time is off for all of them (`celery-py/noop.py`). On two cores: as many processes as cores
//! 1,290/s, twice as many 1,450/s, three or four times as many no more; `-O fair` or not makes no difference.

use crate::drain::drain;
use crate::options::Options;
use crate::peers::{Peer, prefork};
use crate::say;
use crate::stage::Stage;

/// Long enough to tell settings apart, short beside the rounds.
const TASKS: usize = 6_000;
/// How long a drain of the chosen one should take, in seconds, unless all tasks are wanted.
const SECONDS: f64 = 15.0;

/// The fastest, and what it can be given.
#[derive(Debug)]
pub(crate) struct Best {
    pub(crate) peer: Peer,
    /// What it does in a quarter of a minute.
    pub(crate) tasks: usize,
}

pub(crate) async fn best(stage: &Stage, options: &Options) -> anyhow::Result<Best> {
    let cores = std::thread::available_parallelism()?.get();
    let mut best: Option<(f64, Peer)> = None;
    for peer in [prefork(cores, true), prefork(2 * cores, true), prefork(2 * cores, false)] {
        let rate = drain(stage, &peer, TASKS.min(options.tasks)).await?;
        say(format_args!("trial: {}: {rate:.0}/s", peer.name));
        if best.as_ref().is_none_or(|(fastest, _)| rate > *fastest) {
            best = Some((rate, peer));
        }
    }
    let (rate, peer) = best.ok_or_else(|| anyhow::anyhow!("no setting was tried"))?;
    Ok(Best { peer, tasks: (rate * SECONDS) as usize })
}
