//! Sessions: one row per consumer owns all that it holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::params;
use rwork_broker::{Delivery, Receipt};
use rwork_protocol::QueueName;

use super::{Act, Standing, Turn, publish, take};
use crate::consumer_state::{Consumers, Held, Mailbox};
use crate::files::FileId;
use crate::reaper::Dead;

/// End and length of the lease of a session that has none. Processes of the first edition, which go by them, never see it
/// end.
pub(crate) const NO_LEASE: i64 = i64::MAX;

/// Starts a consumer, whose lock is held already; answers in which file.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) owner: i64,
    pub(crate) name: String,
    pub(crate) queues: Arc<[QueueName]>,
    pub(crate) unsettled_max: usize,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Act for Open {
    type Answer = FileId;
    const NAME: &'static str = "start a consumer";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<FileId> {
        turn.prepare("INSERT INTO session(owner, until, lease, name) VALUES(?1, ?2, ?2, ?3)")?
            .execute(params![self.owner, NO_LEASE, self.name])?;
        self.queues.iter().try_for_each(|queue| publish::declare(turn, queue))?;
        Ok(turn.file)
    }

    fn committed(&mut self, _file: &FileId, consumers: &mut Consumers) {
        consumers.add(self.owner, &self.mailbox, Arc::clone(&self.queues), self.unsettled_max);
    }
}

/// Compares what a consumer holds with the file.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) owner: i64,
}

/// The differences.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// Its own by the file, and unknown to it.
    pub(crate) fresh: Vec<(Held, Delivery)>,
    /// Receipts of what it has and the file doesn't.
    pub(crate) gone: Vec<Receipt>,
}

impl Act for Resume {
    type Answer = Standing<Differences>;
    const NAME: &'static str = "resume a consumer";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<Standing<Differences>> {
        let Some(state) = turn.consumers.get(self.owner) else { return Ok(Standing::Dead) };
        if state.is_forgotten {
            return Ok(Standing::Forgotten);
        }
        if !exists(turn, self.owner)? {
            return Ok(Standing::Dead);
        }
        let known: HashMap<i64, Receipt> =
            state.receipts().map(|(receipt, held)| (held.sequence, receipt)).collect();
        let rows: HashSet<i64> = turn
            .prepare("SELECT seq FROM msg WHERE owner = ?1")?
            .query_map([self.owner], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let gone = known
            .iter()
            .filter(|(sequence, _)| !rows.contains(sequence))
            .map(|(_, receipt)| *receipt)
            .collect();
        let mut unknown: Vec<i64> =
            rows.into_iter().filter(|sequence| !known.contains_key(sequence)).collect();
        unknown.sort_unstable();
        let fresh =
            unknown.into_iter().map(|sequence| take::read_held(turn, sequence)).collect::<Result<_, _>>()?;
        Ok(Standing::Ours(Differences { fresh, gone }))
    }

    fn committed(&mut self, answer: &Standing<Differences>, consumers: &mut Consumers) {
        if let (Standing::Ours(differences), Some(state)) = (answer, consumers.get_mut(self.owner)) {
            state.hold(differences.fresh.iter().map(|(held, delivery)| (delivery.receipt, *held)));
            state.release(differences.gone.iter().copied());
        }
    }
}

/// Ends a consumer: what it holds goes back to its old place, uncounted.
#[derive(Debug)]
pub(crate) struct Close {
    pub(crate) owner: i64,
    /// May have begun.
    pub(crate) started: Vec<Receipt>,
}

impl Act for Close {
    type Answer = ();
    const NAME: &'static str = "close a consumer";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<()> {
        let Some(state) = turn.consumers.get(self.owner).filter(|state| !state.is_forgotten) else {
            return Ok(());
        };
        let mut mark = turn.prepare("UPDATE msg SET redelivered = 1 WHERE seq = ?1 AND owner = ?2")?;
        let mut uncount =
            turn.prepare("UPDATE msg SET tries = ?3 WHERE seq = ?1 AND owner = ?2 AND tries > ?3")?;
        for (receipt, held) in state.receipts() {
            if self.started.contains(&receipt) {
                mark.execute([held.sequence, self.owner])?;
            } else {
                uncount.execute([held.sequence, self.owner, i64::from(held.count) - 1])?;
            }
        }
        let released = turn.prepare("UPDATE msg SET owner = NULL WHERE owner = ?1")?.execute([self.owner])?;
        turn.prepare("DELETE FROM session WHERE owner = ?1")?.execute([self.owner])?;
        turn.rings.messages |= released > 0;
        Ok(())
    }

    fn committed(&mut self, (): &(), consumers: &mut Consumers) {
        consumers.remove(self.owner);
    }
}

/// True if a session stands.
pub(crate) fn exists(turn: &Turn<'_>, owner: i64) -> rusqlite::Result<bool> {
    turn.prepare("SELECT 1 FROM session WHERE owner = ?1")?.exists([owner])
}

/// Ends sessions of the dead: their messages go back to their old places. They may have begun, and are not counted.
pub(crate) fn reap(turn: &mut Turn<'_>, dead: &[Dead]) -> rusqlite::Result<()> {
    for Dead { owner, .. } in dead {
        let freed = turn
            .prepare("UPDATE msg SET owner = NULL, redelivered = 1 WHERE owner = ?1")?
            .execute([owner])?;
        turn.prepare("DELETE FROM session WHERE owner = ?1")?.execute([owner])?;
        turn.rings.messages |= freed > 0;
    }
    Ok(())
}
