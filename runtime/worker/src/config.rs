//! Everything about a worker that can be chosen, with its default and the reason for it.

use std::time::Duration;

use rwork_protocol::{DecodeLimits, QueueName};

use crate::error::Error;

/// Messages held unstarted per CPU slot (Celery's `worker_prefetch_multiplier`).
pub const PREFETCH_MULTIPLIER: usize = 4;
/// Messages held unstarted at most: a batch of this size costs a broker well under a microsecond per message, and more
/// would only take work from other workers.
pub const PREFETCH_MAX: usize = 1024;
/// Deliveries without an outcome before a message is given up as poisonous.
pub const DELIVERIES_MAX: u32 = 5;
/// Outcomes committed together: above this the cost per message no longer falls, and latency only grows.
pub const SETTLE_BATCH_MAX: usize = 512;
/// A due time this near is waited for in memory; a later one goes back to the broker.
pub const WAIT_IN_MEMORY_MAX: Duration = Duration::from_secs(1);
/// Messages waiting for their due time in memory at most. Only a broker without delays comes near it.
pub const WAITING_MAX: usize = 10_000;
/// After the drain deadline: how long running tasks have to notice the wish to stop before they are killed.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// After the kill: how long until a task that is still not gone is abandoned. Ten times the sandbox's own grace.
pub const KILL_GRACE: Duration = Duration::from_secs(1);
/// At the end: how long results and acks may take to be committed.
pub const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// The settings of one worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Node name, `worker1@host`: in leases, logs, dead letters, and what tasks see as their hostname.
    pub node: String,
    /// Queues to take from. At least one.
    pub queues: Vec<QueueName>,
    /// Where follow-ups go that name no queue (`task_default_queue`).
    pub default_queue: QueueName,
    /// Invocations that may be on a CPU at once, ≥ 1. The executor's own number: prefetch is derived from it.
    pub concurrency: usize,
    /// Invocations that may exist at once, ≥ `concurrency`. The executor's own number: buffers are derived from it.
    pub max_in_flight: usize,
    /// Messages held unstarted per CPU slot, ≥ 1; more when tasks are short. Default [`PREFETCH_MULTIPLIER`].
    pub prefetch_multiplier: usize,
    /// Messages held unstarted at most, ≥ 1. Default [`PREFETCH_MAX`].
    pub prefetch_max: usize,
    /// Deliveries without an outcome, ≥ 1; the next one is a dead letter. Default [`DELIVERIES_MAX`].
    pub deliveries_max: u32,
    /// Largest body and header table that are looked into; larger ones are dead letters. Default: 16 MiB and 1 MiB.
    pub decode_limits: DecodeLimits,
    /// How long records are kept; `None`: for ever. Default one day.
    pub result_expires: Option<Duration>,
    /// Records also say how their task was called: name, arguments, worker, retries, queue, stamps (`result_extended`).
    /// Default off.
    pub result_extended: bool,
    /// A broker that can't be reached at first is waited for (`broker_connection_retry_on_startup`); one that refuses us
    /// never is. Default on.
    pub retry_on_startup: bool,
    /// Outcomes committed together at most, ≥ 1. Default [`SETTLE_BATCH_MAX`].
    pub settle_batch_max: usize,
    /// A redelivered message whose result is stored as SUCCESS is not run again: what follows it is published and it is
    /// acked (`worker_deduplicate_successful_tasks`). Costs one read per batch that has redelivered messages. Default off,
    /// as in Celery: the same id may be sent again on purpose.
    pub deduplicate_successful: bool,
    /// Bytes held between receipt and commit, ≥ 2: half for bodies, half for results and what follows them. Default
    /// [`BYTES_MAX`](crate::BYTES_MAX).
    pub bytes_max: usize,
    /// How long running tasks may go on after the worker was told to stop; `None`: until they end. Default `None`, as a
    /// warm shutdown of Celery's.
    pub drain_deadline: Option<Duration>,
    /// From the wish to stop to the kill. Default [`STOP_GRACE`].
    pub stop_grace: Duration,
    /// From the kill until a task is abandoned. Default [`KILL_GRACE`].
    pub kill_grace: Duration,
    /// How long the last commit may take. Default [`FLUSH_DEADLINE`].
    pub flush_deadline: Duration,
    /// Pauses between attempts to reach a broker or a backend.
    pub backoff: BackoffConfig,
}

/// Pauses between attempts: each twice the one before, plus a random part of up to as much again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffConfig {
    /// The first. Default 50 ms: a restarted server is often back by then.
    pub first: Duration,
    /// The longest, before the random part. Default 5 s: consumption starts within seconds of a server's return.
    pub longest: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), longest: Duration::from_secs(5) }
    }
}

impl WorkerConfig {
    /// The defaults, for one worker.
    pub fn new(node: impl Into<String>, queues: Vec<QueueName>, default_queue: QueueName) -> Self {
        Self {
            node: node.into(),
            queues,
            default_queue,
            concurrency: 1,
            max_in_flight: 64,
            prefetch_multiplier: PREFETCH_MULTIPLIER,
            prefetch_max: PREFETCH_MAX,
            deliveries_max: DELIVERIES_MAX,
            decode_limits: DecodeLimits::default(),
            result_expires: Some(rwork_backend::RESULT_EXPIRES),
            result_extended: false,
            retry_on_startup: true,
            settle_batch_max: SETTLE_BATCH_MAX,
            deduplicate_successful: false,
            bytes_max: crate::BYTES_MAX,
            drain_deadline: None,
            stop_grace: STOP_GRACE,
            kill_grace: KILL_GRACE,
            flush_deadline: FLUSH_DEADLINE,
            backoff: BackoffConfig::default(),
        }
    }

    /// Outcomes that may exist uncommitted: all that run, and a batch that commits while the next one gathers.
    pub(crate) fn uncommitted_max(&self) -> usize {
        self.max_in_flight.saturating_add(self.settle_batch_max.saturating_mul(2))
    }

    /// What a broker ever sees unacked of this worker: what is unstarted and what runs, and in their places what is done
    /// and not acked yet. A worker that waits for its acks holds as many unstarted messages less, so that the places of
    /// two batches, of which one gathers while the other commits, are enough for neither side to wait for the other.
    /// One for each queue at least, without which a broker would not serve it.
    pub(crate) fn unsettled_max(&self) -> usize {
        self.prefetch_max.saturating_add(self.max_in_flight).max(self.queues.len())
    }

    /// Checks the numbers once, so that nothing later must.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let at_least_one = [
            ("queues", self.queues.len()),
            ("concurrency", self.concurrency),
            ("max_in_flight", self.max_in_flight),
            ("prefetch_multiplier", self.prefetch_multiplier),
            ("prefetch_max", self.prefetch_max),
            ("deliveries_max", self.deliveries_max as usize),
            ("settle_batch_max", self.settle_batch_max),
            ("bytes_max", self.bytes_max),
        ];
        for (setting, value) in at_least_one {
            if value == 0 {
                return Err(Error::Setting { setting, expected: "at least 1", got: value.to_string() });
            }
        }
        if self.backoff.first.is_zero() || self.backoff.first > self.backoff.longest {
            let got = format!("{:?}..{:?}", self.backoff.first, self.backoff.longest);
            return Err(Error::Setting { setting: "backoff", expected: "0 < first <= longest", got });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> WorkerConfig {
        let queue = QueueName::new("celery").unwrap();
        WorkerConfig::new("w1@host", vec![queue.clone()], queue)
    }

    #[test]
    fn zeros_are_named() {
        let refused = |change: fn(&mut WorkerConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(refused(|c| c.queues.clear()), "expected `queues` to be at least 1, got `0`");
        assert_eq!(refused(|c| c.concurrency = 0), "expected `concurrency` to be at least 1, got `0`");
        assert_eq!(
            refused(|c| c.backoff.first = Duration::from_secs(9)),
            "expected `backoff` to be 0 < first <= longest, got `9s..5s`"
        );
        config().check().unwrap();
    }
}
