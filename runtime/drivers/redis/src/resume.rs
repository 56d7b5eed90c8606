//! Resuming: a new line under the same identity, and what stands.
//!
//! Each line has a token of its own. A call that a proxy delivers late carries an old one and changes nothing; of two copies
//! of a process only the first to resume goes on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use redis::Value;
use rwork_broker::{Delivery, Resumed};
use rwork_protocol::service::Error;
use uuid::Uuid;

use crate::broker::locked;
use crate::commit::bury;
use crate::consumer::Shared;
use crate::deliveries::Taken;
use crate::line::Line;
use crate::link::Script;
use crate::renewal::lease_ms;
use crate::reply;
use rwork_protocol::envelope;

static RESUME: Script =
    Script::new(concat!(include_str!("scripts/session.lua"), include_str!("scripts/resume.lua")));

const ACT: &str = "resume consuming";
/// Entries read by one call.
const READ_MAX: usize = 64;
/// Tokens that may be ours: each of so many attempts in a row was sent and lost.
const TOKENS_MAX: usize = 64;

/// Tokens of a consumer's lines.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// What calls carry.
    pub(crate) current: String,
    /// The server has one of these.
    possible: Vec<String>,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let current = random();
        Self { possible: vec![current.clone()], current }
    }

    fn try_another(&mut self) -> (String, Vec<String>) {
        let (token, possible) = (random(), self.possible.clone());
        if self.possible.len() >= TOKENS_MAX {
            self.possible.remove(0);
        }
        self.possible.push(token.clone());
        (token, possible)
    }

    fn set(&mut self, token: String) {
        self.possible = vec![token.clone()];
        self.current = token;
    }
}

/// From the operating system: a generator in memory would be copied with a snapshot of the machine.
pub(crate) fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Makes a new line and asks what stands.
pub(crate) async fn resume(shared: &Shared) -> Result<Resumed, Error> {
    let (_, old) = shared.line();
    old.cut();
    let line = Line::open(&shared.inner, &shared.sources).await?;
    let own = &shared.inner.broker.keys;
    let (token, possible) = locked(&shared.tokens).try_another();
    let keys =
        [&own.consumers, &own.consumer(&shared.id), &own.held(&shared.id), &own.unacked, &own.incarnation];
    let mut call = RESUME.call(&keys);
    call.arg(&shared.id).arg(&token).arg(&shared.incarnation).arg(lease_ms(&shared.inner));
    for token in possible {
        call.arg(token);
    }
    let answer = shared.inner.commands.watched(&line.wire, line.wire.script(ACT, &call)).await?;
    match answer {
        Value::BulkString(word) if word == b"forgotten" => Ok(Resumed::Forgotten),
        // The batch that was not answered may be committed over this line once more.
        Value::BulkString(word) if word == b"dead" => {
            locked(&shared.tokens).set(token);
            shared.inner.broker.has_died.store(true, Ordering::Relaxed);
            Ok(Resumed::Dead)
        }
        held => {
            let takings =
                reply::list(held).ok_or_else(|| reply::odd(&line.wire.url, ACT, "a list of tags"))?;
            let takings = takings.into_iter().filter_map(|tag| taking_of(&reply::text(tag)?)).collect();
            locked(&shared.tokens).set(token);
            stand(shared, line, takings).await
        }
    }
}

/// `consumer:17`
fn taking_of(tag: &str) -> Option<u64> {
    tag.rsplit_once(':')?.1.parse().ok()
}

/// Takes over the new line, and compares what the store says is held with what we know.
async fn stand(shared: &Shared, line: Line, takings: HashSet<u64>) -> Result<Resumed, Error> {
    let unknown: Vec<u64> = {
        let known = locked(&shared.deliveries).takings();
        takings.difference(&known).copied().collect()
    };
    // Read before anything is changed here, so that a failure leaves all to the next attempt. A take of the old line can
    // only have made some of them known.
    let entries = read(shared, &line, &unknown).await?;
    let (mut fresh, mut malformed) = (Vec::new(), Vec::new());
    let gone = {
        let mut deliveries = locked(&shared.deliveries);
        shared.replace(line, &mut deliveries);
        let (gone, unknown) = deliveries.compare(&takings);
        for taken in unknown.into_iter().filter_map(|taking| taken(shared, taking, entries.get(&taking)?)) {
            match deliveries.accept(taken, &shared.sources) {
                Ok(delivery) => fresh.extend(delivery),
                Err(why) => malformed.push(why),
            }
        }
        for Delivery { receipt, .. } in &fresh {
            deliveries.hand_over(*receipt);
        }
        gone
    };
    shared.room.notify_one();
    if !malformed.is_empty()
        && let Err(error) = bury(shared, &malformed).await
    {
        tracing::debug!(%error, "what is no message stays held until the consumer ends");
    }
    Ok(Resumed::Stands { fresh, gone })
}

/// Entries of `unacked` by taking.
async fn read(shared: &Shared, line: &Line, takings: &[u64]) -> Result<HashMap<u64, Bytes>, Error> {
    let mut entries = HashMap::new();
    for takings in takings.chunks(READ_MAX) {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&shared.inner.broker.keys.unacked);
        for taking in takings {
            cmd.arg(shared.tag_of(*taking));
        }
        let answer = shared.inner.commands.watched(&line.wire, line.wire.command(ACT, &cmd)).await?;
        let values =
            reply::list(answer).ok_or_else(|| reply::odd(&line.wire.url, ACT, "a list of entries"))?;
        entries.extend(
            takings.iter().zip(values).filter_map(|(taking, value)| Some((*taking, reply::bytes(value)?))),
        );
    }
    Ok(entries)
}

fn taken(shared: &Shared, taking: u64, entry: &Bytes) -> Option<Taken> {
    let (envelope, queue) = match envelope::read_held(entry) {
        Ok(held) => (held.envelope, Some(held.routing_key)),
        Err(_) => envelope::unwrap_held(entry),
    };
    let queue = queue.and_then(|name| shared.sources.index(&name)).unwrap_or(0);
    let priority = envelope::read(&envelope).ok().and_then(|read| read.message.properties.priority);
    Some(Taken { taking, queue, step: shared.inner.broker.keys.step(priority), envelope })
}
