//! Attempts side by side, each with a head start before the next (RFC 8305).

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::Failure;

/// The first success.
#[derive(Debug)]
pub(crate) struct Won<T> {
    pub(crate) value: T,
    /// What had failed before, if anything.
    pub(crate) failure: Option<Failure>,
}

/// Tries candidates in order: the next when the one before has failed, or has kept silent for its turn. Any of them may still
/// be the first to succeed; the others are dropped then.
///
/// # Errors
/// Of several failures the one that somebody must mend, or else that of the candidate that comes first; `None` without any
/// candidate.
pub(crate) async fn race<C, T, F: Future<Output = Result<T, Failure>>>(
    candidates: impl IntoIterator<Item = C>,
    turn: Duration,
    attempt: impl Fn(C) -> F,
) -> Result<Won<T>, Option<Failure>> {
    let mut waiting = candidates.into_iter().enumerate();
    let mut attempts = FuturesUnordered::new();
    let mut failures = BTreeMap::new();
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        attempts.extend(next.map(|(rank, candidate)| {
            let attempt = attempt(candidate);
            async move { (rank, attempt.await) }
        }));
        tokio::select! {
            ended = attempts.next() => match ended {
                Some((_, Ok(value))) => return Ok(Won { value, failure: worst(failures) }),
                Some((rank, Err(failure))) => drop(failures.insert(rank, failure)),
                None => return Err(worst(failures)),
            },
            () = sleep(turn), if !is_last => {}
        }
    }
}

fn worst(failures: BTreeMap<usize, Failure>) -> Option<Failure> {
    failures.into_values().fold(None, |told, failure| Some(Failure::or_worse(told, failure)))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use rwork_protocol::service::RedactedUrl;
    use tokio::time::Instant;

    use super::*;

    const TURN: Duration = Duration::from_millis(250);

    #[derive(Clone, Copy)]
    enum Candidate {
        Silent,
        Refuses,
        Late,
        There,
    }

    async fn attempt(candidate: Candidate) -> Result<&'static str, Failure> {
        match candidate {
            Candidate::Silent => pending().await,
            Candidate::Refuses => Err(Failure::unreachable(&RedactedUrl::new("x://h"), "refused", "")),
            Candidate::Late => {
                sleep(Duration::from_secs(1)).await;
                Ok("late")
            }
            Candidate::There => Ok("there"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_succeed_wins() {
        use Candidate::{Late, Refuses, Silent, There};
        for (candidates, winner, took_ms) in [
            (&[There, Silent][..], "there", 0),
            (&[Silent, There], "there", 250),
            (&[Silent, Silent, There], "there", 500),
            (&[Refuses, There], "there", 0),
            (&[Late, Silent], "late", 1000),
            (&[Late, There], "there", 250),
            (&[Late, Refuses, Refuses], "late", 1000),
        ] {
            let began = Instant::now();
            let won = race(candidates.iter().copied(), TURN, attempt).await.unwrap();
            assert_eq!((won.value, began.elapsed().as_millis()), (winner, took_ms));
        }
        assert!(race([Refuses, Refuses], TURN, attempt).await.unwrap_err().is_some());
        assert!(race([], TURN, attempt).await.unwrap_err().is_none());
    }
}
