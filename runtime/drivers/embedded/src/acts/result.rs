//! Writing and deleting results.

use std::time::Instant;

use bytes::Bytes;
use rusqlite::params;
use rwork_backend::Stored;
use rwork_protocol::Timestamp;

use super::{Act, Turn};
use crate::row::Key;

/// Expired results deleted in one turn, which others wait for.
pub(crate) const SWEEP_ROWS: usize = 500;

/// A record, encoded.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) body: Bytes,
    pub(crate) is_final: bool,
    pub(crate) expires: Option<Timestamp>,
}

/// Writes records, except over a final one that has not expired; with a moment, nothing but final ones after it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) batch: Vec<Entry>,
    pub(crate) moment: Option<Instant>,
}

impl Act for Store {
    type Answer = Vec<Stored>;
    const NAME: &'static str = "store results";
    // A worker that can't store can't settle either.
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<Vec<Stored>> {
        let is_late = self.moment.is_some_and(|moment| Instant::now() >= moment);
        let may_be = |entry: &&Entry| entry.is_final || !is_late;
        let mut written = write(turn, self.batch.iter().filter(may_be))?.into_iter();
        let became = |entry| may_be(&entry).then(|| written.next()).flatten().unwrap_or(Stored::Late);
        Ok(self.batch.iter().map(became).collect())
    }
}

/// Writes records in order, except over a final one.
pub(crate) fn write<'a>(
    turn: &mut Turn<'_>,
    entries: impl Iterator<Item = &'a Entry>,
) -> rusqlite::Result<Vec<Stored>> {
    let mut upsert = turn.prepare(
        "INSERT INTO result(id, expires, final, body) VALUES(?1, ?2, ?3, ?4)
         ON CONFLICT(id) DO UPDATE SET expires = excluded.expires, final = excluded.final, body = excluded.body
         WHERE result.final = 0 OR result.expires <= ?5",
    )?;
    let now = turn.now.as_micros();
    let store = |entry: &Entry| {
        let expires = entry.expires.map(Timestamp::as_micros);
        let rows = upsert.execute(params![entry.key, expires, entry.is_final, entry.body.as_ref(), now])?;
        Ok(if rows > 0 { Stored::Written } else { Stored::Kept })
    };
    let stored = entries.map(store).collect::<rusqlite::Result<Vec<_>>>()?;
    turn.rings.results |= !stored.is_empty();
    Ok(stored)
}

/// Deletes one record; true when there was one.
#[derive(Debug)]
pub(crate) struct Forget {
    pub(crate) key: Key,
}

impl Act for Forget {
    type Answer = bool;
    const NAME: &'static str = "forget a result";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<bool> {
        let expired: Option<bool> = turn
            .prepare("DELETE FROM result WHERE id = ?1 RETURNING expires <= ?2")?
            .query_map(params![self.key, turn.now.as_micros()], |row| row.get::<_, Option<bool>>(0))?
            .next()
            .transpose()?
            .map(Option::unwrap_or_default);
        Ok(expired == Some(false))
    }
}

/// Deletes some of the expired results; returns how many.
pub(crate) fn sweep(turn: &Turn<'_>) -> rusqlite::Result<usize> {
    turn.prepare(
        "DELETE FROM result WHERE id IN (SELECT id FROM result WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
    )?
    .execute(params![turn.now.as_micros(), i64::try_from(SWEEP_ROWS).unwrap_or(i64::MAX)])
}
