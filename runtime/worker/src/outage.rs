//! An outage as people see it: one line when it starts, one when it ends with its length, and pauses in between.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rwork_broker::Error;
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
    /// Whose fault it is: two servers may be one, and each may fail alone.
    service: Service,
    since: Option<Instant>,
    /// What was said last, so that another cause is said too.
    said: Option<String>,
    backoff: Backoff,
}

impl Outage {
    /// Of the broker.
    pub(crate) fn of_broker(act: &'static str, backoff: Backoff) -> Self {
        Self { act, service: Service::Broker, since: None, said: None, backoff }
    }

    /// Of the result backend.
    pub(crate) fn of_backend(act: &'static str, backoff: Backoff) -> Self {
        Self { service: Service::Backend, ..Self::of_broker(act, backoff) }
    }

    /// Notes that it began, which somebody else has logged: an attempt that fails has more to say.
    pub(crate) fn begins(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// An attempt failed; says how long to wait before the next. A cause that lasts is told once, another one when it
    /// takes its place: a server that comes back may have another password.
    pub(crate) fn failed(&mut self, error: &Error) -> Duration {
        self.since.get_or_insert_with(Instant::now);
        let cause = cause_of(error);
        if self.said.as_ref() != Some(&cause) {
            let service = self.service.as_str();
            tracing::warn!(
                service,
                error = %chain(error),
                hint = error.hint(),
                "can't {}: trying again until it works",
                self.act
            );
            self.said = Some(cause);
        }
        self.backoff.pause()
    }

    /// An attempt succeeded.
    pub(crate) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.said = None;
            self.backoff.reset();
            let (service, outage_ms) = (self.service.as_str(), since.elapsed().as_millis() as u64);
            tracing::info!(service, outage_ms, "can {} again", self.act);
        }
    }
}

/// Which of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Broker,
    Backend,
}

impl Service {
    fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Backend => "result backend",
        }
    }
}

/// The cause that passes by itself.
const UNREACHABLE: &str = "unreachable";

/// What tells causes apart. A server that can't be reached is one cause, however each attempt ends.
fn cause_of(error: &Error) -> String {
    match error {
        Error::Unreachable { .. } | Error::LeaseLost { .. } | Error::Doubtful => UNREACHABLE.to_owned(),
        other => other.to_string(),
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

    #[tokio::test(start_paused = true)]
    async fn another_cause_is_said_and_the_same_one_is_not() {
        let backoff = Backoff::new(BackoffConfig::default(), fastrand::Rng::with_seed(1));
        let mut outage = Outage::of_broker("consume", backoff);
        let url = rwork_broker::RedactedUrl::new("redis://host");
        let gone = || Error::Unreachable { url: url.clone(), source: "connection refused".into() };
        let refused = |why: &str| Error::Refused { url: url.clone(), why: why.into(), hint: String::new() };
        let mut said = |error: Error| {
            let before = outage.said.clone();
            outage.failed(&error);
            outage.said != before
        };
        let told =
            [gone(), gone(), refused("password"), refused("password"), refused("no such user"), gone()];
        assert_eq!(told.map(&mut said), [true, false, true, false, true, true]);
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let error = crate::Error::Consume {
            queues: "`a`".to_owned(),
            source: rwork_broker::Error::LeaseLost { name: "w".to_owned() },
        };
        assert_eq!(
            chain(&error),
            "failed to consume from `a`: `w` is refused: another connection took its place, or it is known as dead"
        );
    }
}
