//! Dead letters and purging.

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use rwork_broker::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
use rwork_protocol::{QueueName, Timestamp};

use super::{Act, Turn};
use crate::row;

/// Rows of one turn: others, in all processes, get theirs in between.
pub(crate) const TURN_ROWS: usize = 1000;

/// The rows that a query means, oldest first: the text after `SELECT …` and its values.
fn selection(query: &DeadLetterQuery) -> (String, Vec<Value>) {
    let mut sql = String::from(" FROM dead WHERE id > ?");
    let mut values = vec![Value::from(query.after.as_ref().map_or(0, number))];
    if let Some(queue) = &query.queue {
        sql.push_str(" AND queue = ?");
        values.push(Value::from(queue.as_str().to_owned()));
    }
    if !query.ids.is_empty() {
        let ids: Vec<String> = query.ids.iter().map(|id| number(id).to_string()).collect();
        sql.push_str(" AND id IN (SELECT value FROM json_each(?))");
        values.push(Value::from(format!("[{}]", ids.join(","))));
    }
    sql.push_str(" ORDER BY id");
    if let Some(limit) = query.limit {
        sql.push_str(" LIMIT ?");
        values.push(Value::from(i64::try_from(limit).unwrap_or(i64::MAX)));
    }
    (sql, values)
}

/// Ids that are no numbers of ours name nothing.
fn number(id: &DeadLetterId) -> i64 {
    id.0.parse().unwrap_or(-1)
}

/// Reads matching dead letters.
pub(crate) fn list(db: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<Vec<DeadLetter>> {
    let (matching, values) = selection(query);
    let columns = concat!("SELECT id, queue, tries, kind, detail, worker, at, ", row::columns!());
    let mut select = db.prepare(&format!("{columns}{matching}"))?;
    let letters = select.query_map(params_from_iter(values), |found| {
        Ok(DeadLetter {
            id: DeadLetterId(found.get::<_, i64>(0)?.to_string()),
            queue: row::queue(found, 1)?,
            delivery_count: found.get(2)?,
            reason: Reason {
                kind: found.get(3)?,
                detail: found.get(4)?,
                worker: found.get(5)?,
                at: Timestamp::from_micros(found.get(6)?),
            },
            message: row::read(found, 7)?,
        })
    })?;
    letters.collect()
}

/// What is done with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Back at the end of its queue, as new.
    Retried,
    /// Deleted.
    Purged,
}

/// Retries or purges some dead letters; answers how many.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) ids: Vec<i64>,
    pub(crate) fate: Fate,
}

impl Act for Move {
    type Answer = usize;
    const NAME: &'static str = "move dead letters";
    // What it adds to one table it takes from the other.
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<usize> {
        let mut copy = turn.prepare(concat!(
            "INSERT INTO msg(queue, prio, ",
            row::columns!(),
            ") SELECT queue, prio, ",
            row::columns!(),
            " FROM dead WHERE id = ?1"
        ))?;
        let mut delete = turn.prepare("DELETE FROM dead WHERE id = ?1")?;
        let mut moved = 0;
        for id in &self.ids {
            if self.fate == Fate::Retried {
                copy.execute([id])?;
                turn.rings.messages = true;
            }
            moved += delete.execute([id])?;
        }
        Ok(moved)
    }
}

/// Ids of matching dead letters.
pub(crate) fn matching(db: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<Vec<i64>> {
    let (matching, values) = selection(query);
    db.prepare(&format!("SELECT id{matching}"))?
        .query_map(params_from_iter(values), |row| row.get(0))?
        .collect()
}

/// Deletes some messages of a queue that nobody holds; answers how many. Fewer than [`TURN_ROWS`]: those were the last.
#[derive(Debug)]
pub(crate) struct PurgeQueue {
    pub(crate) queue: QueueName,
    /// The last that is deleted, so that a purge beside a busy producer ends.
    pub(crate) last: i64,
}

impl Act for PurgeQueue {
    type Answer = usize;
    const NAME: &'static str = "purge a queue";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<usize> {
        // Two statements, since each has its own index.
        let ready = "DELETE FROM msg WHERE seq IN (SELECT seq FROM msg
           WHERE queue = ?1 AND owner IS NULL AND eta IS NULL AND seq <= ?2 ORDER BY prio, seq LIMIT ?3)";
        let delayed = "DELETE FROM msg WHERE seq IN (SELECT seq FROM msg
           WHERE queue = ?1 AND eta IS NOT NULL AND seq <= ?2 LIMIT ?3)";
        let mut deleted = 0;
        for some in [ready, delayed] {
            let room = i64::try_from(TURN_ROWS - deleted).unwrap_or(0);
            deleted += turn.prepare(some)?.execute(params![self.queue.as_str(), self.last, room])?;
        }
        Ok(deleted)
    }
}

/// The last message that was published.
pub(crate) fn last_message(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT coalesce(max(seq), 0) FROM msg", [], |row| row.get(0))
}
