//! Handing messages to a consumer that waits.

use rusqlite::{Connection, OptionalExtension, Row, params};
use rwork_broker::{Delivery, Error, Room};
use rwork_protocol::service::RedactedUrl;
use rwork_protocol::{QueueName, Timestamp};

use super::{Ended, Job, Turn, session};
use crate::consumer_state::{ConsumerState, Consumers, Held};
use crate::error;
use crate::row;

/// Bodies in one take, in bytes, whatever room there is: others wait meanwhile.
const TAKE_BYTES_MAX: usize = 32 << 20;
/// Delayed messages made ready in one turn, which others wait for.
const DUE_MAX: i64 = 1000;

/// The columns of [`read`] before those of the message.
macro_rules! marks {
    () => {
        "seq, tries, redelivered, queue, "
    };
}

/// Takes messages for one consumer.
#[derive(Debug)]
pub(crate) struct Take {
    owner: i64,
    room: Room,
    taken: Vec<(Held, Delivery)>,
    found: Found,
}

/// The consumer's session, which must own what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Session,
    NoSession,
    NoFile,
}

impl Take {
    pub(crate) fn new(owner: i64, room: Room) -> Self {
        let room = Room { messages: room.messages, bytes: room.bytes.clamp(1, TAKE_BYTES_MAX) };
        Self { owner, room, taken: Vec::new(), found: Found::Session }
    }

    fn take(&mut self, turn: &mut Turn<'_>, queue: &QueueName, bytes: &mut usize) -> rusqlite::Result<()> {
        let mut select = turn.prepare(concat!(
            "SELECT ",
            marks!(),
            row::columns!(),
            " FROM msg WHERE queue = ?1 AND owner IS NULL AND eta IS NULL ORDER BY prio, seq LIMIT ?2"
        ))?;
        let limit = i64::try_from(self.room.messages - self.taken.len()).unwrap_or(i64::MAX);
        let mut rows = select.query(params![queue.as_str(), limit])?;
        while *bytes < self.room.bytes
            && let Some(found) = rows.next()?
        {
            let taken = read(turn, found)?;
            *bytes += taken.1.message.size();
            self.taken.push(taken);
        }
        Ok(())
    }

    fn find(&self, turn: &Turn<'_>) -> rusqlite::Result<Found> {
        Ok(match turn.consumers.get(self.owner) {
            Some(state) if state.is_forgotten => Found::NoFile,
            Some(_) if session::exists(turn, self.owner)? => Found::Session,
            _ => Found::NoSession,
        })
    }
}

impl Job for Take {
    fn drains(&self) -> bool {
        true
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        self.taken.clear();
        self.found = self.find(turn)?;
        let Some(state) = turn.consumers.get(self.owner).filter(|_| self.found == Found::Session) else {
            return Ok(());
        };
        make_ready(turn)?;
        let mut bytes = 0;
        for queue in in_turn(state) {
            if self.taken.len() < self.room.messages && bytes < self.room.bytes {
                self.take(turn, queue, &mut bytes)?;
            }
        }
        let mut update = turn.prepare("UPDATE msg SET owner = ?1 WHERE seq = ?2")?;
        self.taken.iter().try_for_each(|(held, _)| update.execute([self.owner, held.sequence]).map(drop))
    }

    fn finish(self: Box<Self>, outcome: Result<(), Ended>, consumers: &mut Consumers, url: &RedactedUrl) {
        match (outcome, self.found) {
            (Ok(()), Found::NoFile) => consumers.fail(self.owner, error::moved(url, None)),
            (Ok(()), Found::NoSession) => {
                consumers
                    .fail(self.owner, Error::LeaseLost { name: format!("session {} at {url}", self.owner) });
            }
            (Ok(()), Found::Session) if self.taken.is_empty() => {}
            (Ok(()), Found::Session) => consumers.deliver(self.owner, self.taken),
            (Err(ended), _) => consumers.fail(self.owner, ended.explain(url, "take messages")),
        }
    }
}

/// Reads a message that a consumer owns, as a new delivery.
pub(crate) fn read_held(turn: &mut Turn<'_>, sequence: i64) -> rusqlite::Result<(Held, Delivery)> {
    let mut select =
        turn.prepare(concat!("SELECT ", marks!(), row::columns!(), " FROM msg WHERE seq = ?1"))?;
    let mut rows = select.query([sequence])?;
    let found = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    read(turn, found)
}

fn read(turn: &mut Turn<'_>, found: &Row<'_>) -> rusqlite::Result<(Held, Delivery)> {
    let (sequence, starts): (_, u32) = (found.get(0)?, found.get(1)?);
    let count = starts.saturating_add(1);
    let delivery = Delivery {
        message: row::read(found, 4)?,
        queue: row::queue(found, 3)?,
        // The first edition has no mark: there a count is one.
        redelivered: starts > 0 || found.get(2)?,
        delivery_count: count,
        receipt: turn.next_receipt(),
    };
    Ok((Held { sequence, count }, delivery))
}

/// The consumer's queues, each being the first in its turn.
fn in_turn(state: &ConsumerState) -> impl Iterator<Item = &QueueName> {
    let first = state.first % state.queues.len().max(1);
    state.queues.iter().cycle().skip(first).take(state.queues.len())
}

/// Makes messages ready whose time has come.
fn make_ready(turn: &mut Turn<'_>) -> rusqlite::Result<()> {
    let due = turn
        .prepare("UPDATE msg SET eta = NULL WHERE seq IN (SELECT seq FROM msg WHERE eta <= ?1 ORDER BY eta LIMIT ?2)")?
        .execute([turn.now.as_micros(), DUE_MAX])?;
    // Another consumer may be served with what this one doesn't take.
    turn.rings.messages |= due > 0;
    Ok(())
}

/// Prospects of a consumer that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextWork {
    /// A turn will find something.
    Now,
    /// Nothing before then.
    Until(Timestamp),
    /// Nothing is known to come.
    Nothing,
}

/// Looks whether a turn would find something, without taking the lock.
pub(crate) fn look(db: &Connection, consumers: &Consumers, now: Timestamp) -> rusqlite::Result<NextWork> {
    let mut ready =
        db.prepare_cached("SELECT 1 FROM msg WHERE queue = ?1 AND owner IS NULL AND eta IS NULL LIMIT 1")?;
    for (_, _, state) in consumers.waiting() {
        // What became of its file must be told.
        if state.is_forgotten {
            return Ok(NextWork::Now);
        }
        for queue in state.queues.iter() {
            if ready.exists([queue.as_str()])? {
                return Ok(NextWork::Now);
            }
        }
    }
    let eta: Option<i64> = db
        .prepare_cached("SELECT eta FROM msg WHERE eta IS NOT NULL ORDER BY eta LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(match eta {
        Some(next) if next <= now.as_micros() => NextWork::Now,
        Some(next) => NextWork::Until(Timestamp::from_micros(next)),
        None => NextWork::Nothing,
    })
}
