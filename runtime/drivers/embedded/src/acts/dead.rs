//! Dead letters and purging.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use rwork_broker::{DeadLetter, DeadLetterId, DeadLetterQuery, Reason};
use rwork_protocol::{QueueName, Timestamp};

use super::{Act, Turn};
use crate::row;

/// The rows that a query means, oldest first: the text after `SELECT …` and its values.
fn selection(query: &DeadLetterQuery) -> (String, Vec<Value>) {
    // Ids that are no numbers of ours name nothing.
    let number = |id: &DeadLetterId| id.0.parse::<i64>().unwrap_or(-1);
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

/// Puts matching dead letters at the end of their queues, as new.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) query: DeadLetterQuery,
}

impl Act for Retry {
    type Answer = u64;
    const NAME: &'static str = "retry dead letters";
    // What it adds to one table it takes from the other.
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<u64> {
        let mut copy = turn.prepare(concat!(
            "INSERT INTO msg(queue, prio, ",
            row::columns!(),
            ") SELECT queue, prio, ",
            row::columns!(),
            " FROM dead WHERE id = ?1"
        ))?;
        let mut delete = turn.prepare("DELETE FROM dead WHERE id = ?1")?;
        let ids = matching(turn.db, &self.query)?;
        for id in &ids {
            copy.execute([id])?;
            delete.execute([id])?;
        }
        turn.rings.messages |= !ids.is_empty();
        Ok(ids.len() as u64)
    }
}

/// Deletes matching dead letters.
#[derive(Debug)]
pub(crate) struct Purge {
    pub(crate) query: DeadLetterQuery,
}

impl Act for Purge {
    type Answer = u64;
    const NAME: &'static str = "purge dead letters";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<u64> {
        let mut delete = turn.prepare("DELETE FROM dead WHERE id = ?1")?;
        let ids = matching(turn.db, &self.query)?;
        ids.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
        Ok(ids.len() as u64)
    }
}

fn matching(db: &Connection, query: &DeadLetterQuery) -> rusqlite::Result<Vec<i64>> {
    let (matching, values) = selection(query);
    db.prepare(&format!("SELECT id{matching}"))?
        .query_map(params_from_iter(values), |row| row.get(0))?
        .collect()
}

/// Deletes the messages of a queue that nobody holds.
#[derive(Debug)]
pub(crate) struct PurgeQueue {
    pub(crate) queue: QueueName,
}

impl Act for PurgeQueue {
    type Answer = u64;
    const NAME: &'static str = "purge a queue";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<u64> {
        // Two statements, since each has its own index.
        let ready = turn
            .prepare("DELETE FROM msg WHERE queue = ?1 AND owner IS NULL AND eta IS NULL")?
            .execute([self.queue.as_str()])?;
        let delayed = turn
            .prepare("DELETE FROM msg WHERE queue = ?1 AND eta IS NOT NULL")?
            .execute([self.queue.as_str()])?;
        Ok((ready + delayed) as u64)
    }
}
