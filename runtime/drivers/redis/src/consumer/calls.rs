//! What a consumer's taking asks of the server: to take, to wait and take, to look, to bury.
//!
//! A wait is a blocking move of one message out of a list, and behind it, on its way already, the script that takes and
//! registers. The server runs that in the moment the move is done: a message that comes to an idle consumer is with it after
//! the time of one trip, and no crash of ours can come between.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use redis::{Cmd, Value};
use rwork_broker::{Disposition, Error, Reason};
use rwork_protocol::Timestamp;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use crate::broker::locked;
use crate::envelope::Malformed;
use crate::lease::lease_ms;
use crate::link::Wire;
use crate::settle::{Ended, settle};
use crate::take::{Element, Outlook, Take, look};

/// The shortest wait: to the server a time of 0 is for ever, and what was due already is asked for again, but not in a
/// tight loop.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(1);

/// There is nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// Until then only the server's word is worth another look.
    pub(super) until: Instant,
    /// Then something is due. The server itself ends a wait up to a tenth of a second late.
    pub(super) is_due: bool,
    /// The queue at whose gate to wait: its first list has not been looked at. `None`: the server tells of all lists.
    pub(super) gate: Option<usize>,
}

/// A wait that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) rest: Rest,
    /// The server told of another list meanwhile.
    pub(super) rang: bool,
    /// The server let us wait.
    pub(super) is_allowed: bool,
}

pub(super) enum Came {
    /// Messages, of at most so many.
    Taken(Vec<Element>, usize),
    /// The same, by a wait.
    Waited(Vec<Element>, usize, Wait),
    /// What there was, save behind the gate of a queue.
    Looked(Outlook, Option<usize>),
    /// What was no message is among the dead letters.
    Buried,
    /// The lease was lost.
    Lost,
}

/// What a take wants.
pub(super) struct Wish {
    pub(super) shared: Arc<Shared>,
    pub(super) order: Vec<usize>,
    pub(super) fair: bool,
    /// How many were taken before.
    pub(super) first: u64,
    pub(super) max: usize,
}

impl Wish {
    fn take(&self) -> Take<'_> {
        Take {
            keys: &self.shared.inner.broker.keys,
            sources: &self.shared.sources,
            consumer: &self.shared.id,
            order: &self.order,
            fair: self.fair,
            first: self.first,
            max: self.max,
            lease_ms: lease_ms(&self.shared.inner),
        }
    }
}

pub(super) async fn take(wish: Wish) -> Result<Came, Error> {
    let Shared { inner, wire, .. } = &*wish.shared;
    // A connection that died without a word is found out long before its answer would be too late.
    let taken = inner.commands.watched(wire, wish.take().now(wire)).await?;
    Ok(taken.map_or(Came::Lost, |elements| Came::Taken(elements, wish.max)))
}

/// Waits at a gate until something comes there, the server tells of another list, or the time is up; and takes.
pub(super) async fn wait(wish: Wish, rest: Rest) -> Result<Came, Error> {
    // What was taken just now goes first.
    yield_now().await;
    let shared = &*wish.shared;
    let Shared { inner, wire, .. } = shared;
    let Some(gate) = rest.gate.and_then(|place| shared.sources.gate(place)) else { return take(wish).await };
    let left = rest.until.saturating_duration_since(Instant::now());
    // A time of 0 is for ever.
    let patience = left.min(inner.commands.wait_max(wire)).max(WAIT_MIN);
    let request = wish.take();
    let waited = inner.commands.watched(wire, request.at(wire, gate, patience));
    let rang = AtomicBool::new(false);
    let (taken, is_allowed) = tokio::select! {
        biased;
        waited = waited => waited?,
        never = call_back(shared, rest, &rang) => match never {},
    };
    let wait = Wait { rest, rang: rang.into_inner(), is_allowed };
    Ok(taken.map_or(Came::Lost, |elements| Came::Waited(elements, wish.max, wait)))
}

/// Ends a wait when there is something to do elsewhere.
async fn call_back(shared: &Shared, rest: Rest, rang: &AtomicBool) -> Infallible {
    tokio::select! {
        () = shared.bell.notified() => {}
        () = shared.closing.cancelled() => {}
        () = sleep_until(rest.until), if rest.is_due => {}
    }
    rang.store(true, Ordering::Relaxed);
    let unblock = unblock(&shared.wire);
    loop {
        match shared.inner.commands.command("end a wait", &unblock).await {
            Ok(Value::Int(0)) => {}
            Ok(_) => break,
            // It ends by itself in a moment.
            Err(error) => {
                tracing::debug!(%error, "a wait could not be ended early");
                break;
            }
        }
        // It has not begun yet, or has ended and its answer is on the way.
        sleep(WAIT_MIN).await;
    }
    std::future::pending().await
}

/// Ends a wait on a connection.
pub(super) fn unblock(wire: &Wire) -> Cmd {
    let mut cmd = redis::cmd("CLIENT");
    cmd.arg("UNBLOCK").arg(wire.greeting.id);
    cmd
}

pub(super) async fn look_out(shared: Arc<Shared>, gate: Option<usize>) -> Result<Came, Error> {
    // What was taken just now goes first.
    yield_now().await;
    let Shared { inner, sources, wire, is_told, .. } = &*shared;
    let look = look(sources, gate.and_then(|place| sources.gate(place)), wire, *is_told);
    let outlook = inner.commands.watched(wire, look).await?;
    Ok(Came::Looked(outlook, gate))
}

/// Puts what is no message where somebody can look at it.
pub(super) async fn bury(shared: Arc<Shared>, malformed: Vec<(u64, Malformed)>) -> Result<Came, Error> {
    let now = Timestamp::from_system(SystemTime::now());
    let ended: Vec<Ended> = {
        let table = locked(&shared.table);
        let end = |(receipt, why): &(u64, Malformed)| {
            let held = table.get(*receipt)?;
            let reason = Reason {
                kind: "undecodable".to_owned(),
                detail: why.to_string(),
                worker: shared.name.clone(),
                at: now,
            };
            tracing::warn!(error = %why, "a list element is no message: it is among the dead letters now");
            Some(Ended {
                tag: held.tag.clone(),
                number: *receipt,
                act: shared.act(held, &Disposition::DeadLetter(reason), now),
            })
        };
        malformed.iter().filter_map(end).collect()
    };
    let settled = settle(&shared.inner, &shared.id, &ended).await?;
    Ok(settled.map_or(Came::Lost, |_| Came::Buried))
}
