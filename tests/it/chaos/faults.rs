//! Faults of workers and their store, one every two seconds, each kind as often as every other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Broker, QueueInfo};
use rwork_tests::history::{Fault, Producer, Verdict};
use rwork_tests::process::is_full_run;
use tokio::sync::watch;
use tokio::time::sleep;

use super::BUSY_SPINS;

/// Groups of ten tasks in one send.
const GROUPS: u64 = 10;

/// A producer that was refused, or is too far ahead, tries again after this.
const PAUSE: Duration = Duration::from_millis(50);

/// Messages in hand when a worker is killed: more than one worker of three takes at once while the others take as well.
pub(super) const HELD_MIN: usize = 50;
/// A kill waits for them so long.
pub(super) const HELD_WITHIN: Duration = Duration::from_secs(1);

/// Something that happens to a worker or to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A worker is killed with SIGKILL, and started again.
    Kill,
    /// A worker of rwork's stands still (SIGSTOP) for longer than a lease, and goes on.
    Stop,
    /// Every connection of rwork's workers is cut.
    Cut,
    /// The store answers nobody for longer than a lease.
    Pause,
    /// The store is killed and started again, with what it had.
    Restart,
    /// The store has no room.
    Full,
}

/// Size of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Tasks: three fifths are steps of chains of three, a tenth is retried once.
    pub(super) tasks: u64,
    /// Messages that wait or are held, at most.
    pub(super) ahead: u64,
    /// Something happens so often.
    pub(super) every: Duration,
    pub(super) stop: Duration,
    pub(super) pause: Duration,
    pub(super) full: Duration,
    /// Lease of rwork's workers, in seconds.
    pub(super) lease: u32,
    /// kombu's `visibility_timeout`, in seconds: longer than any pause, which else restores what a living worker holds.
    pub(super) visibility_timeout: u32,
}

const SHORT: Scale = Scale {
    tasks: 4_000,
    ahead: 200,
    every: Duration::from_millis(700),
    stop: Duration::from_millis(2_500),
    pause: Duration::from_secs(2),
    full: Duration::from_secs(1),
    lease: 1,
    visibility_timeout: 6,
};

const FULL: Scale = Scale {
    tasks: 50_000,
    ahead: 1_000,
    every: Duration::from_secs(2),
    stop: Duration::from_secs(8),
    pause: Duration::from_secs(7),
    full: Duration::from_secs(5),
    lease: 5,
    visibility_timeout: 30,
};

impl Scale {
    /// The long form where it was asked for.
    pub(super) fn wanted() -> Self {
        if is_full_run() { FULL } else { SHORT }
    }
}

/// The order in which things happen: rounds of all kinds, each shuffled.
#[derive(Debug)]
pub(super) struct Schedule {
    kinds: Vec<Happening>,
    round: Vec<Happening>,
    /// Number of rounds that are over.
    pub(super) rounds: usize,
    pub(super) rng: fastrand::Rng,
}

impl Schedule {
    pub(super) fn new(kinds: &[Happening], seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { kinds: kinds.to_vec(), round: Vec::new(), rounds: 0, rng }
    }

    pub(super) fn next(&mut self) -> Happening {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.round);
        }
        let next = self.round.pop().unwrap_or(Happening::Kill);
        self.rounds += usize::from(self.round.is_empty());
        next
    }
}

/// One producer of a mix of tasks that goes on through outages, and is never far ahead of the workers.
pub(super) async fn produce_mix(
    mut producer: Producer,
    broker: Arc<dyn Broker>,
    scale: Scale,
    mut is_up: watch::Receiver<bool>,
) -> anyhow::Result<Producer> {
    while (producer.accepted.len() as u64) < scale.tasks {
        // What an outage hides is not waited for.
        while broker.queues().await.is_ok_and(|queues| backlog(&queues) > scale.ahead) {
            sleep(PAUSE).await;
        }
        if !producer.send_mix(GROUPS, BUSY_SPINS).await? {
            is_up.wait_for(|is_up| *is_up).await?;
            sleep(PAUSE).await;
        }
    }
    Ok(producer)
}

fn backlog(queues: &[QueueInfo]) -> u64 {
    queues.iter().map(|queue| queue.ready + queue.unsettled).sum()
}

/// The three counts that a promise is made of.
pub(super) struct Counts<'a>(pub(super) &'a Verdict);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |is: fn(&Fault) -> bool| self.0.faults.iter().filter(|fault| is(fault)).count();
        let lost = count(|fault| matches!(fault, Fault::Lost(_)));
        let twice = count(|fault| matches!(fault, Fault::RanTwice(..)));
        let doubled = count(|fault| matches!(fault, Fault::Doubled(..)));
        write!(f, "lost {lost}, starts beyond 1 + deaths and reaps {twice}, doubled follow-ups {doubled}")
    }
}
