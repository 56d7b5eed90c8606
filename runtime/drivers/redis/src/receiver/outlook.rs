//! What is known of each queue: whether something may be there, so that a take asks only those that may have something and
//! its cost does not grow with idle queues.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::take::Left;
use crate::options::QueueOrder;
use crate::sources::Sources;

/// Queues asked by one take: some thousand keys.
const ASKED_MAX: usize = 256;
/// How long a queue is left alone that has a key of a wrong type.
const BROKEN: Duration = Duration::from_secs(1);

/// What is known of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: it must be looked at.
    Unknown,
    /// There may be something.
    Ready,
    /// Nothing until it is told of or due.
    Idle(Option<Instant>),
}

#[derive(Debug)]
struct Queue {
    state: State,
    /// The server tells when one of its keys changes, or all are looked at often.
    is_watched: bool,
    is_broken: bool,
}

/// All queues of a consumer.
#[derive(Debug)]
pub(super) struct Outlook {
    queues: Vec<Queue>,
    /// Indexes, the first to be served first.
    order: Vec<usize>,
    pub(super) is_fair: bool,
}

impl Outlook {
    pub(super) fn new(sources: &Sources, strategy: QueueOrder) -> Self {
        let mut order: Vec<usize> = (0..sources.queues.len()).collect();
        if strategy == QueueOrder::Sorted {
            order.sort_by_key(|queue| sources.name(*queue));
        }
        let unknown = |_| Queue { state: State::Unknown, is_watched: false, is_broken: false };
        let queues = sources.queues.iter().map(unknown).collect();
        Self { queues, order, is_fair: strategy == QueueOrder::RoundRobin }
    }

    /// On a new line the server watches nothing.
    pub(super) fn forget(&mut self) {
        for queue in &mut self.queues {
            (queue.state, queue.is_watched) = (State::Unknown, false);
        }
    }

    /// Idle ones must be looked at again: the server's word is not trusted for ever. Returns whether some wait for a look
    /// already.
    pub(super) fn doubt(&mut self) -> bool {
        let is_waiting = self.queues.iter().any(|queue| queue.state == State::Unknown);
        for queue in self.queues.iter_mut().filter(|queue| matches!(queue.state, State::Idle(_))) {
            queue.state = State::Unknown;
        }
        is_waiting
    }

    /// The server told of these.
    pub(super) fn told(&mut self, changed: &BTreeSet<usize>) {
        for queue in changed {
            if let Some(queue) = self.queues.get_mut(*queue) {
                (queue.state, queue.is_watched) = (State::Ready, false);
            }
        }
    }

    /// Makes ready what is due; when the next one is.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for queue in &mut self.queues {
            match queue.state {
                State::Idle(Some(due)) if due <= now => queue.state = State::Ready,
                State::Idle(Some(due)) => next = Some(next.map_or(due, |next: Instant| next.min(due))),
                _ => {}
            }
        }
        next
    }

    /// Queues to take from; empty when none is known to have something.
    pub(super) fn ready(&self) -> Vec<usize> {
        let is_ready = |queue: &&usize| self.state(**queue) == Some(State::Ready);
        self.order.iter().filter(is_ready).take(ASKED_MAX).copied().collect()
    }

    /// Queues that must be looked at.
    pub(super) fn unknown(&self) -> Vec<usize> {
        let is_unknown = |queue: &&usize| self.state(**queue) == Some(State::Unknown);
        self.order.iter().filter(is_unknown).copied().collect()
    }

    /// Takes in what a look found in some queues together.
    pub(super) fn looked(&mut self, queues: &[usize], is_there_something: bool) {
        for queue in queues {
            if let Some(queue) = self.queues.get_mut(*queue) {
                queue.state = if is_there_something { State::Ready } else { State::Idle(None) };
                queue.is_watched = true;
            }
        }
    }

    /// Takes in what a take left. Queues that it took from are not watched any more.
    pub(super) fn took(&mut self, asked: &[usize], served: &BTreeSet<usize>, left: &[Left], now: Instant) {
        for queue in served {
            if let Some(queue) = self.queues.get_mut(*queue) {
                queue.is_watched = false;
            }
        }
        for (index, left) in asked.iter().zip(left) {
            let Some(queue) = self.queues.get_mut(*index) else { continue };
            let due = match left {
                Left::Nothing => None,
                Left::DueMs(wait) => Some(now + Duration::from_millis(*wait)),
                Left::Broken => Some(now + BROKEN),
            };
            let is_broken = *left == Left::Broken;
            if is_broken && !queue.is_broken {
                tracing::error!(
                    index,
                    "a key of a queue is not what kombu keeps there (wrong type): the queue is not served"
                );
            }
            queue.is_broken = is_broken;
            queue.state = if queue.is_watched || is_broken { State::Idle(due) } else { State::Unknown };
        }
        if self.is_fair {
            self.order.retain(|queue| !served.contains(queue));
            self.order.extend(served);
        }
    }

    fn state(&self, queue: usize) -> Option<State> {
        self.queues.get(queue).map(|queue| queue.state)
    }
}
