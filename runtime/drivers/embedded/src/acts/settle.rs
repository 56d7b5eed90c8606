//! Ending deliveries.

use rusqlite::params;
use rwork_broker::{Disposition, Reason, Settled, Settlement};
use rwork_protocol::Timestamp;

use super::{Act, Turn};
use crate::row;
use crate::seat::Seats;

/// Settles a batch of one consumer. Every statement names the owner: what is not ours any more is left alone.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) owner: i64,
    pub(crate) batch: Vec<Settlement>,
}

impl Act for Settle {
    type Answer = Vec<Settled>;
    const NAME: &'static str = "settle deliveries";
    const DRAINS: bool = true;

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<Vec<Settled>> {
        let Some(seat) = turn.seats.get(self.owner) else {
            return Ok(vec![Settled::Lost; self.batch.len()]);
        };
        let mut answers = Vec::with_capacity(self.batch.len());
        for settlement in &self.batch {
            let done = match seat.sequence(&settlement.receipt) {
                Some(sequence) => settle(turn, sequence, self.owner, &settlement.disposition)?,
                None => false,
            };
            answers.push(if done { Settled::Done } else { Settled::Lost });
        }
        Ok(answers)
    }

    fn committed(&mut self, _answers: &Vec<Settled>, seats: &mut Seats) {
        seats.settled(self.owner, self.batch.iter().map(|settlement| &settlement.receipt));
    }
}

fn settle(turn: &mut Turn<'_>, sequence: i64, owner: i64, how: &Disposition) -> rusqlite::Result<bool> {
    let ours = [sequence, owner];
    let rows = match how {
        Disposition::Ack => turn.prepare(DELETE)?.execute(ours)?,
        Disposition::Release => {
            turn.rings.messages = true;
            turn.prepare("UPDATE msg SET owner = NULL WHERE seq = ?1 AND owner = ?2")?.execute(ours)?
        }
        Disposition::Requeue => {
            turn.rings.messages = true;
            turn.prepare("UPDATE msg SET owner = NULL, tries = tries + 1 WHERE seq = ?1 AND owner = ?2")?
                .execute(ours)?
        }
        Disposition::Delay(until) => {
            turn.rings.messages = true;
            let eta = Some(*until).filter(|until| *until > turn.now).map(Timestamp::as_micros);
            turn.prepare("UPDATE msg SET owner = NULL, eta = ?3 WHERE seq = ?1 AND owner = ?2")?
                .execute(params![sequence, owner, eta])?
        }
        Disposition::DeadLetter(reason) => {
            bury(turn, sequence, owner, reason)?;
            turn.prepare(DELETE)?.execute(ours)?
        }
    };
    Ok(rows > 0)
}

const DELETE: &str = "DELETE FROM msg WHERE seq = ?1 AND owner = ?2";

fn bury(turn: &Turn<'_>, sequence: i64, owner: i64, reason: &Reason) -> rusqlite::Result<usize> {
    let Reason { kind, detail, worker, at } = reason;
    turn.prepare(concat!(
        "INSERT INTO dead(queue, prio, tries, kind, detail, worker, at, ",
        row::columns!(),
        ") SELECT queue, prio, tries + 1, ?3, ?4, ?5, ?6, ",
        row::columns!(),
        " FROM msg WHERE seq = ?1 AND owner = ?2"
    ))?
    .execute(params![sequence, owner, kind, detail, worker, at.as_micros()])
}
