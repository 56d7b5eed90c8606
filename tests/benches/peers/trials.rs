//! What suits Celery best on this machine, and which native Rust worker is faster: short drains before the rounds, of which
//! the fastest is the peer.
//!
//! Whatever else takes time is off for all of them (`celery-py/noop.py`). On Redis and two cores: as many processes as
//! cores 1,290/s, twice as many 1,450/s, three or four times as many no more; `-O fair` or not makes no difference.

use crate::drain::drain;
use crate::ground::Ground;
use crate::options::Options;
use crate::peers::Peer;
use crate::say;

/// Long enough to tell settings apart, short beside the rounds.
const TASKS: usize = 6_000;
/// How long a drain of the chosen one should take, in seconds, unless all tasks are wanted.
const SECONDS: f64 = 15.0;

/// The fastest, and what it is given.
#[derive(Debug)]
pub(crate) struct Best {
    pub(crate) peer: Peer,
    /// A peer that would take minutes is given what it does in a quarter of one, all of it at its full speed.
    pub(crate) tasks: usize,
}

pub(crate) async fn best(
    ground: &impl Ground,
    candidates: impl IntoIterator<Item = Peer>,
    options: &Options,
) -> anyhow::Result<Best> {
    let mut best: Option<(f64, Peer)> = None;
    for peer in candidates {
        let rate = drain(ground, &peer, TASKS.min(options.tasks)).await?.rate;
        say(format_args!("trial: {}: {rate:.0}/s", peer.name));
        if best.as_ref().is_none_or(|(fastest, _)| rate > *fastest) {
            best = Some((rate, peer));
        }
    }
    let (rate, peer) = best.ok_or_else(|| anyhow::anyhow!("no setting was tried"))?;
    let tasks = if options.full { options.tasks } else { options.tasks.min((rate * SECONDS) as usize) };
    Ok(Best { peer, tasks })
}
