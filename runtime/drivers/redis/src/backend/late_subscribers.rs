//! Clients that subscribe a moment after their record was published.
//!
//! A stock Celery client sends SUBSCRIBE and GET on two connections and awaits neither: a record that is stored between the
//! two is in neither answer, and the client waits for ever. So each ready record whose publication had no receiver is looked
//! at twice more, all of a moment by one question (`PUBSUB NUMSUB`). Where somebody has subscribed by then, what stands
//! *then* is published again. Records that nobody waits for cost no more than the questions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use redis::Value;
use rwork_backend::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::link::{Link, Script};

static REPUBLISH: Script = Script::new(include_str!("republish.lua"));

/// When a record is looked at, counted from its storing. A client's second command is milliseconds behind the first; a
/// stalled client gets the second chance.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// Records that are due within so long share a question.
const TURN: Duration = Duration::from_millis(50);
/// Channels of one question: a tenth of a millisecond of the server's time.
const QUESTION_MAX: usize = 1000;
/// Channels that wait to be looked at, some 10 MB: two seconds of what one server can store. Beyond, the oldest are let go.
const WAITING_MAX: usize = 1 << 16;
const ACT: &str = "look for late subscribers";

/// Ready records that nobody has heard of yet.
#[derive(Debug)]
pub(crate) struct LateSubscribers {
    commands: Link,
    waiting: Arc<Waiting>,
    /// Asks; started by the first record.
    asking: OnceLock<AbortOnDropHandle<()>>,
    /// It was said that the server refuses to publish.
    warned: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Held for a few moves by whoever stores and by the task that asks.
    queues: Mutex<Queues>,
    noted: Notify,
}

/// For each look the channels that wait for it, the oldest first.
type Queues = [VecDeque<Unheard>; LOOKS.len()];

#[derive(Debug)]
struct Unheard {
    channel: String,
    stored: Instant,
}

impl LateSubscribers {
    pub(crate) fn new(commands: Link) -> Self {
        Self { commands, waiting: Arc::default(), asking: OnceLock::new(), warned: AtomicBool::new(false) }
    }

    /// Looks again, later, at ready records that were published to nobody; a record's key is its channel.
    pub(crate) fn note(&self, channels: impl IntoIterator<Item = String>) {
        let stored = Instant::now();
        let mut channels = channels.into_iter().peekable();
        if channels.peek().is_none() {
            return;
        }
        self.waiting.with(|queues| {
            let [first, ..] = queues;
            first.extend(channels.map(|channel| Unheard { channel, stored }));
            shorten(queues);
        });
        self.waiting.noted.notify_one();
        self.asking.get_or_init(|| {
            let asking = ask(self.commands.clone(), Arc::clone(&self.waiting));
            AbortOnDropHandle::new(tokio::spawn(asking))
        });
    }

    /// Says once that the server refuses to publish.
    pub(crate) fn warn_of_refusal(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let url = self.commands.url();
            let hint = "give that user the channels `&*`: `ACL SETUSER <user> &*`";
            tracing::warn!(%url, hint, "no permission to publish results: they are stored, and clients that wait are not told");
        }
    }
}

fn shorten(queues: &mut Queues) {
    let mut excess = queues.iter().map(VecDeque::len).sum::<usize>().saturating_sub(WAITING_MAX);
    for queue in queues.iter_mut().rev() {
        let dropped = excess.min(queue.len());
        queue.drain(..dropped);
        excess -= dropped;
    }
}

impl Waiting {
    fn next_due(&self) -> Option<Instant> {
        let due = |(queue, look): (&VecDeque<Unheard>, Duration)| Some(queue.front()?.stored + look);
        self.with(|queues| queues.iter().zip(LOOKS).filter_map(due).min())
    }

    /// Takes at most one question's channels that are due for a look.
    fn take(&self, nth: usize, look: Duration, now: Instant) -> Vec<Unheard> {
        self.with(|queues| {
            let Some(queue) = queues.get_mut(nth) else { return Vec::new() };
            let due = queue.iter().take(QUESTION_MAX).take_while(|unheard| unheard.stored + look <= now);
            let count = due.count();
            queue.drain(..count).collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Queues) -> T) -> T {
        act(&mut self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Until the handle is dropped.
async fn ask(commands: Link, waiting: Arc<Waiting>) {
    loop {
        match waiting.next_due() {
            None => waiting.noted.notified().await,
            Some(due) => {
                sleep_until(due + TURN).await;
                look(&commands, &waiting, Instant::now()).await;
            }
        }
    }
}

async fn look(commands: &Link, waiting: &Waiting, now: Instant) {
    for (nth, look) in LOOKS.into_iter().enumerate() {
        loop {
            let mut unheard = waiting.take(nth, look, now);
            if unheard.is_empty() {
                break;
            }
            match heard(commands, &mut unheard).await {
                Ok(()) => waiting.with(|queues| {
                    queues.get_mut(nth + 1).into_iter().for_each(|later| later.extend(unheard.drain(..)))
                }),
                // Subscribers have lost their lines as well, and read again when they subscribe again.
                Err(error) => {
                    tracing::debug!(url = %commands.url(), %error, "failed to look for late subscribers")
                }
            }
        }
    }
}

/// Publishes again where somebody listens by now; the others remain.
async fn heard(commands: &Link, unheard: &mut Vec<Unheard>) -> Result<(), Error> {
    let mut question = redis::cmd("PUBSUB");
    question.arg("NUMSUB");
    for Unheard { channel, .. } in &*unheard {
        question.arg(channel);
    }
    let answer = commands.command(ACT, &question).await?;
    let mut counts = answer.as_map_iter().into_iter().flatten().map(|(_, count)| *count != Value::Int(0));
    let heard: Vec<Unheard> = unheard.extract_if(.., |_| counts.next().unwrap_or(false)).collect();
    if !heard.is_empty() {
        let keys: Vec<&str> = heard.iter().map(|heard| heard.channel.as_str()).collect();
        commands.script("publish results again", &REPUBLISH.call(&keys)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_let_go() {
        let stored = Instant::now();
        let many = |count| (0..count).map(|nth| Unheard { channel: format!("{nth}"), stored }).collect();
        let mut queues: Queues = [many(WAITING_MAX - 1), many(3)];
        shorten(&mut queues);
        assert_eq!(queues.each_ref().map(VecDeque::len), [WAITING_MAX - 1, 1]);
        let mut queues: Queues = [many(WAITING_MAX + 2), many(3)];
        shorten(&mut queues);
        assert_eq!(queues.each_ref().map(VecDeque::len), [WAITING_MAX, 0]);
        assert_eq!(queues[0].front().unwrap().channel, "2");
    }
}
