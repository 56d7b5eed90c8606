//! Sessions: one row per consumer carries the lease of all that it holds, so that renewing costs one row.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use rwork_broker::Error;
use rwork_protocol::QueueName;

use super::{Act, Turn, publish};
use crate::seat::{Mailbox, Seats};

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Starts a consumer.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) owner: i64,
    pub(crate) name: String,
    pub(crate) lease: Duration,
    pub(crate) queues: Arc<[QueueName]>,
    pub(crate) unsettled_max: usize,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Act for Open {
    type Answer = ();
    const NAME: &'static str = "start a consumer";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        let until = turn.now.plus(self.lease).as_micros();
        turn.prepare("INSERT INTO session(owner, until, lease, name) VALUES(?1, ?2, ?3, ?4)")?
            .execute(params![self.owner, until, micros(self.lease), self.name])?;
        self.queues.iter().try_for_each(|queue| publish::declare(turn, queue))
    }

    fn committed(&mut self, (): &(), seats: &mut Seats) {
        seats.add(self.owner, &self.mailbox, Arc::clone(&self.queues), self.unsettled_max);
    }
}

/// Keeps what a consumer holds; false when its lease had run out and somebody saw it.
///
/// A lease that ran out unseen is kept: what is held is still nobody else's.
#[derive(Debug)]
pub(crate) struct Renew {
    pub(crate) owner: i64,
    pub(crate) name: String,
    pub(crate) lease: Duration,
}

impl Act for Renew {
    type Answer = bool;
    const NAME: &'static str = "renew a lease";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<bool> {
        let until = turn.now.plus(self.lease).as_micros();
        let rows = turn
            .prepare("UPDATE session SET until = ?2 WHERE owner = ?1")?
            .execute(params![self.owner, until])?;
        Ok(rows > 0)
    }

    fn committed(&mut self, alive: &bool, seats: &mut Seats) {
        if !alive {
            seats.fail(self.owner, Error::LeaseLost { name: self.name.clone() });
        }
    }
}

/// Ends a consumer: what it holds goes back to its old place, uncounted.
#[derive(Debug)]
pub(crate) struct Close {
    pub(crate) owner: i64,
}

impl Act for Close {
    type Answer = ();
    const NAME: &'static str = "close a consumer";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        let released = turn.prepare("UPDATE msg SET owner = NULL WHERE owner = ?1")?.execute([self.owner])?;
        turn.prepare("DELETE FROM session WHERE owner = ?1")?.execute([self.owner])?;
        turn.rings.messages |= released > 0;
        Ok(())
    }

    fn committed(&mut self, (): &(), seats: &mut Seats) {
        seats.remove(self.owner);
    }
}

/// Ends the sessions whose lease ran out: their messages go back to their old place, counted. Consumers of this very
/// process are spared: they live, however late their renewal is.
pub(crate) fn reap(turn: &mut Turn<'_>) -> rusqlite::Result<()> {
    let now = turn.now.as_micros();
    let gone: Vec<(i64, bool)> = turn
        .prepare("SELECT owner, until <= ?1 FROM session WHERE until <= ?1 OR until > ?1 + lease")?
        .query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (owner, over) in gone {
        if over && turn.seats.get(owner).is_some() {
            continue;
        }
        if over {
            turn.prepare("UPDATE msg SET owner = NULL, tries = tries + 1 WHERE owner = ?1")?
                .execute([owner])?;
            turn.prepare("DELETE FROM session WHERE owner = ?1")?.execute([owner])?;
            turn.rings.messages = true;
        } else {
            // The clock was set back: a dead worker's messages must not wait until it has caught up.
            turn.prepare("UPDATE session SET until = ?2 + lease WHERE owner = ?1")?.execute([owner, now])?;
        }
    }
    Ok(())
}
