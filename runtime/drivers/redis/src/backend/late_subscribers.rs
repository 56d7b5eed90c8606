//! Clients that subscribe a moment after their record was published.
//!
//! A stock Celery client sends SUBSCRIBE and GET on two connections and awaits neither: a record that is stored between the
//! two is in neither answer, and the client waits for ever. So each ready record whose publication had no receiver is looked
//! at twice more, all of a moment by one question (`PUBSUB NUMSUB`). Where somebody has subscribed by then, what stands
//! *then* is published again. Records that nobody waits for cost no more than the questions.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::Value;
use rwork_backend::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::link::{Link, Script};

static REPUBLISH: Script = Script::new(include_str!("republish.lua"));

/// Pauses before the looks: 100 ms and 1 s after the storing. A client's second command is milliseconds behind the first; a
/// stalled client gets the second chance.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(900)];
/// Records stored within so long share their questions.
const TURN: Duration = Duration::from_millis(50);
/// Channels of one question: a tenth of a millisecond of the server's time.
const QUESTION_MAX: usize = 1000;
/// Channels of one turn, more than one server can store in it. Beyond, records are let go.
const NOTED_MAX: usize = 1 << 12;
/// Turns that are looked at, at once: 26 MB of channels at most. A server that answers takes 21.
const TURNS_MAX: usize = 64;
const ACT: &str = "look for late subscribers";

/// Ready records that nobody has heard of yet.
#[derive(Debug)]
pub(crate) struct LateSubscribers {
    commands: Link,
    /// Channels on their way to the task that asks; started by the first record.
    noted: OnceLock<(mpsc::Sender<String>, AbortOnDropHandle<()>)>,
    /// It was said that the server refuses to publish.
    warned: AtomicBool,
}

impl LateSubscribers {
    pub(crate) fn new(commands: Link) -> Self {
        Self { commands, noted: OnceLock::new(), warned: AtomicBool::new(false) }
    }

    /// Looks again, later, at ready records that were published to nobody; a record's key is its channel.
    pub(crate) fn note(&self, channels: impl IntoIterator<Item = String>) {
        for channel in channels {
            let (noted, _) = self.noted.get_or_init(|| {
                let (noted, channels) = mpsc::channel(NOTED_MAX);
                let asking = ask(self.commands.clone(), channels);
                (noted, AbortOnDropHandle::new(tokio::spawn(asking)))
            });
            let _ = noted.try_send(channel);
        }
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

/// Until the handle is dropped.
async fn ask(commands: Link, mut noted: mpsc::Receiver<String>) {
    let mut turns = JoinSet::new();
    let mut channels = Vec::new();
    while let Some(first) = noted.recv().await {
        channels.push(first);
        sleep(TURN).await;
        while let Ok(channel) = noted.try_recv() {
            channels.push(channel);
        }
        turns.spawn(look_twice(commands.clone(), std::mem::take(&mut channels)));
        while turns.try_join_next().is_some() {}
        if turns.len() == TURNS_MAX {
            turns.join_next().await;
        }
    }
}

async fn look_twice(commands: Link, mut channels: Vec<String>) {
    for pause in PAUSES {
        sleep(pause).await;
        let mut unheard = Vec::new();
        for channels in channels.chunks(QUESTION_MAX) {
            match look(&commands, channels).await {
                Ok(left) => unheard.extend(left),
                // Subscribers have lost their lines as well, and read again when they subscribe again.
                Err(error) => {
                    tracing::debug!(url = %commands.url(), %error, "failed to look for late subscribers");
                }
            }
        }
        channels = unheard;
    }
}

/// Publishes again where somebody listens by now; returns the others.
async fn look(commands: &Link, channels: &[String]) -> Result<Vec<String>, Error> {
    let mut question = redis::cmd("PUBSUB");
    question.arg("NUMSUB").arg(channels);
    let answer = commands.command(ACT, &question).await?;
    let counts = answer.as_map_iter().into_iter().flatten().map(|(_, count)| *count != Value::Int(0));
    let (heard, unheard): (Vec<_>, Vec<_>) = channels.iter().zip(counts).partition(|(_, is_heard)| *is_heard);
    if !heard.is_empty() {
        let keys: Vec<&String> = heard.into_iter().map(|(channel, _)| channel).collect();
        commands.script("publish results again", &REPUBLISH.call(&keys)).await?;
    }
    Ok(unheard.into_iter().map(|(channel, _)| channel.clone()).collect())
}
