//! Handing messages to a consumer that waits.

use rusqlite::{Connection, OptionalExtension, params};
use rwork_broker::{Delivery, Error, Receipt};
use rwork_protocol::service::RedactedUrl;
use rwork_protocol::{QueueName, Timestamp};

use super::{Ended, Job, Turn, session};
use crate::row;
use crate::seat::{Seat, Seats};

/// Bodies in one lease, in bytes: a consumer that asks for hundreds of messages must not be given gigabytes.
const LEASE_BYTES_MAX: usize = 32 << 20;
/// Delayed messages made ready in one turn, which others wait for.
const DUE_MAX: i64 = 1000;

/// Takes up to `wanted` messages for one consumer.
#[derive(Debug)]
pub(crate) struct Lease {
    owner: i64,
    wanted: usize,
    taken: Vec<(i64, Delivery)>,
    /// Its session is there. Without one nobody would ever free what it takes.
    alive: bool,
}

impl Lease {
    pub(crate) fn new(owner: i64, wanted: usize) -> Self {
        Self { owner, wanted, taken: Vec::new(), alive: true }
    }

    fn take(&mut self, turn: &mut Turn<'_>, queue: &QueueName, bytes: &mut usize) -> rusqlite::Result<()> {
        let mut select = turn.prepare(concat!(
            "SELECT seq, tries, ",
            row::columns!(),
            " FROM msg WHERE queue = ?1 AND owner IS NULL AND eta IS NULL ORDER BY prio, seq LIMIT ?2"
        ))?;
        let limit = i64::try_from(self.wanted - self.taken.len()).unwrap_or(i64::MAX);
        let mut rows = select.query(params![queue.as_str(), limit])?;
        while *bytes < LEASE_BYTES_MAX
            && let Some(found) = rows.next()?
        {
            let tries: u32 = found.get(1)?;
            let message = row::read(found, 2)?;
            *bytes += message.size();
            let delivery = Delivery {
                message,
                queue: queue.clone(),
                redelivered: tries > 0,
                delivery_count: tries.saturating_add(1),
                receipt: Receipt::Number(turn.next_receipt()),
            };
            self.taken.push((found.get(0)?, delivery));
        }
        Ok(())
    }
}

impl Job for Lease {
    fn drains(&self) -> bool {
        true
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        self.taken.clear();
        tidy(turn)?;
        let mine = turn.prepare("SELECT 1 FROM session WHERE owner = ?1")?.exists([self.owner])?;
        self.alive = mine;
        let Some(seat) = turn.seats.get(self.owner).filter(|_| mine) else { return Ok(()) };
        let mut bytes = 0;
        for queue in in_turn(seat) {
            if self.taken.len() < self.wanted && bytes < LEASE_BYTES_MAX {
                self.take(turn, queue, &mut bytes)?;
            }
        }
        let mut update = turn.prepare("UPDATE msg SET owner = ?1 WHERE seq = ?2")?;
        self.taken.iter().try_for_each(|(sequence, _)| update.execute([self.owner, *sequence]).map(drop))
    }

    fn finish(self: Box<Self>, outcome: Result<(), Ended>, seats: &mut Seats, url: &RedactedUrl) {
        match outcome {
            Ok(()) if !self.alive => {
                seats.fail(self.owner, Error::LeaseLost { name: format!("session {} at {url}", self.owner) });
            }
            Ok(()) if self.taken.is_empty() => {}
            Ok(()) => seats.deliver(self.owner, self.taken),
            Err(ended) => match ended.explain(url, "take messages") {
                // The consumer goes on waiting; the next look tries again.
                error if error.is_retryable() => tracing::warn!(%error, "taking messages has to wait"),
                error => seats.fail(self.owner, error),
            },
        }
    }
}

/// The consumer's queues, each being the first in its turn.
fn in_turn(seat: &Seat) -> impl Iterator<Item = &QueueName> {
    let first = seat.first % seat.queues.len().max(1);
    seat.queues.iter().cycle().skip(first).take(seat.queues.len())
}

/// Makes due messages ready and ends expired sessions.
fn tidy(turn: &mut Turn<'_>) -> rusqlite::Result<()> {
    let due = turn
        .prepare("UPDATE msg SET eta = NULL WHERE seq IN (SELECT seq FROM msg WHERE eta <= ?1 ORDER BY eta LIMIT ?2)")?
        .execute([turn.now.as_micros(), DUE_MAX])?;
    // Another consumer may be served with what this one doesn't take.
    turn.rings.messages |= due > 0;
    if turn.reap { session::reap(turn) } else { Ok(()) }
}

/// What a consumer that waits can expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// A turn will find something.
    Now,
    /// Nothing before then.
    Until(Timestamp),
    /// Nothing is known to come.
    Nothing,
}

/// Looks whether a turn would find something, without taking the lock.
pub(crate) fn look(db: &Connection, seats: &Seats, now: Timestamp, reap: bool) -> rusqlite::Result<Outlook> {
    let mut ready =
        db.prepare_cached("SELECT 1 FROM msg WHERE queue = ?1 AND owner IS NULL AND eta IS NULL LIMIT 1")?;
    for (_, _, seat) in seats.waiting() {
        for queue in seat.queues.iter() {
            if ready.exists([queue.as_str()])? {
                return Ok(Outlook::Now);
            }
        }
    }
    let eta = db
        .prepare_cached("SELECT eta FROM msg WHERE eta IS NOT NULL ORDER BY eta LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let until = if reap { first_end(db, seats, now)? } else { None };
    Ok(match eta.into_iter().chain(until).min() {
        Some(next) if next <= now.as_micros() => Outlook::Now,
        Some(next) => Outlook::Until(Timestamp::from_micros(next)),
        None => Outlook::Nothing,
    })
}

/// When the first lease of another process's consumer runs out; at once for one that a clock set back made too long.
fn first_end(db: &Connection, seats: &Seats, now: Timestamp) -> rusqlite::Result<Option<i64>> {
    let now = now.as_micros();
    let mut select = db.prepare_cached("SELECT owner, until, lease FROM session")?;
    let mut rows = select.query([])?;
    let mut first = None;
    while let Some(row) = rows.next()? {
        let (owner, until, lease): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if seats.get(owner).is_none() {
            let end = if until > now.saturating_add(lease) { now } else { until };
            first = Some(first.map_or(end, |first: i64| first.min(end)));
        }
    }
    Ok(first)
}
