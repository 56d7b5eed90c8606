//! An outage as people see it: one line when it starts, one when it ends with its length, and pauses in between.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::config::BackoffConfig;

/// Pauses that grow to a cap, with jitter. Never gives up.
#[derive(Debug)]
pub(crate) struct Backoff {
    config: BackoffConfig,
    rng: fastrand::Rng,
    pauses: Option<ExponentialBackoff>,
}

impl Backoff {
    pub(crate) fn new(config: BackoffConfig, rng: fastrand::Rng) -> Self {
        Self { config, rng, pauses: None }
    }

    /// The next pause, at most twice the longest.
    pub(crate) fn pause(&mut self) -> Duration {
        let (config, rng) = (self.config, &mut self.rng);
        let pauses = self.pauses.get_or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(config.first)
                .with_max_delay(config.longest)
                .without_max_times()
                .with_jitter()
                .with_jitter_seed(rng.u64(..))
                .build()
        });
        pauses.next().unwrap_or(config.longest)
    }

    /// Starts over with the first pause.
    pub(crate) fn reset(&mut self) {
        self.pauses = None;
    }
}

/// What can't be done for now, since when.
#[derive(Debug)]
pub(crate) struct Outage {
    /// What can't be done: `store results`.
    act: &'static str,
    since: Option<Instant>,
    backoff: Backoff,
}

impl Outage {
    pub(crate) fn new(act: &'static str, backoff: Backoff) -> Self {
        Self { act, since: None, backoff }
    }

    /// It began in a way that somebody else has told.
    pub(crate) fn begins(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// An attempt failed; says how long to wait before the next.
    pub(crate) fn failed(&mut self, error: &(dyn std::error::Error + 'static)) -> Duration {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(error = %chain(error), "can't {}: trying again until it works", self.act);
        }
        self.backoff.pause()
    }

    /// An attempt succeeded.
    pub(crate) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.backoff.reset();
            tracing::info!(outage_ms = since.elapsed().as_millis() as u64, "can {} again", self.act);
        }
    }
}

/// An error and everything below it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        text.push_str(": ");
        text.push_str(&source.to_string());
        below = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_are_repeated_by_the_seed() {
        let config = BackoffConfig::default();
        let pauses = |seed| {
            let mut backoff = Backoff::new(config, fastrand::Rng::with_seed(seed));
            (0..50).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        let first = pauses(7);
        assert!(first[0] >= config.first && first[0] <= config.first * 2);
        assert!(first.iter().all(|pause| *pause <= config.longest * 2));
        assert!(first[20..].iter().all(|pause| *pause >= config.longest));
        assert_eq!(first, pauses(7));
        assert_ne!(first, pauses(8));
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let error = crate::Error::Consume {
            queues: "`a`".to_owned(),
            source: rwork_broker::Error::LeaseLost { name: "w".to_owned() },
        };
        assert_eq!(chain(&error), "failed to consume from `a`: the lease of `w` ran out");
    }
}
