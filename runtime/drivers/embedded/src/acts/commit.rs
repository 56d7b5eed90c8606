//! One transaction with all that outcomes cause: records, follow-ups and the ends of deliveries.

use rusqlite::{OptionalExtension, params};
use rwork_broker::{Committed, Disposition, Ending, Part, Reason, Receipt, Refusal};
use rwork_protocol::Timestamp;

use super::publish::{self, Post};
use super::result::{self, Entry};
use super::{Act, Standing, Turn};
use crate::consumer_state::{Consumers, Held};
use crate::row;

/// A commit whose parts were checked and encoded.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) records: Vec<Entry>,
    pub(crate) posts: Vec<Post>,
    pub(crate) ending: Ending,
}

/// Commits a numbered batch of one consumer. A batch that was committed before gets the answers it got then.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) owner: i64,
    pub(crate) number: u64,
    /// True if it was sent before: it may be done, and is not refused for want of room before its number is looked at.
    pub(crate) is_repeated: bool,
    /// Commits, in order; one that can't be done is refused before it comes here.
    pub(crate) items: Vec<Result<Item, Refusal>>,
}

impl Act for Commit {
    type Answer = Standing<Vec<Committed>>;
    const NAME: &'static str = "commit outcomes";
    const DRAINS: bool = true;

    /// A batch of which nothing ends a delivery makes no room: what a guest sends, and the states between.
    fn drains(&self) -> bool {
        let ends = |item: &Item| matches!(item.ending, Ending::Settle(_));
        let adds = |item: &Item| !item.posts.is_empty() || !item.records.is_empty();
        let mut items = self.items.iter().filter_map(|item| item.as_ref().ok());
        self.is_repeated || items.clone().any(ends) || !items.any(adds)
    }

    fn run(&mut self, turn: &mut Turn<'_>) -> rusqlite::Result<Standing<Vec<Committed>>> {
        match turn.consumers.get(self.owner) {
            Some(state) if state.is_forgotten => return Ok(Standing::Forgotten),
            Some(_) => {}
            None => return Ok(Standing::Dead),
        }
        let number = i64::try_from(self.number).unwrap_or(i64::MAX);
        let last: Option<(i64, String)> = turn
            .prepare(
                "SELECT number, CASE number WHEN ?2 THEN answers ELSE '' END FROM session WHERE owner = ?1",
            )?
            .query_row([self.owner, number], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match last {
            Some((last, answers)) if last == number => return Ok(Standing::Ours(read_answers(&answers))),
            Some((last, _)) if last < number => {}
            _ => return Ok(Standing::Dead),
        }
        let answers = self.items.iter().map(|item| self.apply(turn, item)).collect::<Result<Vec<_>, _>>()?;
        turn.prepare("UPDATE session SET number = ?2, answers = ?3 WHERE owner = ?1")?.execute(params![
            self.owner,
            number,
            write_answers(&answers)
        ])?;
        Ok(Standing::Ours(answers))
    }

    fn committed(&mut self, answer: &Standing<Vec<Committed>>, consumers: &mut Consumers) {
        let (Standing::Ours(answers), Some(state)) = (answer, consumers.get_mut(self.owner)) else { return };
        let ended = self.items.iter().zip(answers).filter_map(|(item, answer)| {
            match (&item.as_ref().ok()?.ending, answer) {
                (ending, Committed::Lost) => ending.receipt(),
                (Ending::Settle(settlement), Committed::Done) => Some(settlement.receipt),
                _ => None,
            }
        });
        state.release(ended);
    }
}

impl Commit {
    fn apply(&self, turn: &mut Turn<'_>, item: &Result<Item, Refusal>) -> rusqlite::Result<Committed> {
        let item = match item {
            Ok(item) => item,
            Err(refusal) => return Ok(Committed::Refused(refusal.clone())),
        };
        if self.end(turn, &item.ending)? {
            result::write(turn, item.records.iter())?;
            publish::insert(turn, &item.posts)?;
            return Ok(Committed::Done);
        }
        // A SUCCESS is final, whoever reached it.
        result::write(turn, item.records.iter().filter(|entry| entry.is_final))?;
        Ok(Committed::Lost)
    }

    /// Ends the delivery; false, and nothing is changed, when it is not ours.
    fn end(&self, turn: &mut Turn<'_>, ending: &Ending) -> rusqlite::Result<bool> {
        match ending {
            Ending::Unfenced => Ok(true),
            Ending::Holds(receipt) => self.with(turn, *receipt, |turn, held| {
                turn.prepare("SELECT 1 FROM msg WHERE seq = ?1 AND owner = ?2")?
                    .exists([held.sequence, self.owner])
            }),
            Ending::Starting(receipt) => self.with(turn, *receipt, |turn, held| {
                let mut write = turn.prepare("UPDATE msg SET tries = ?3 WHERE seq = ?1 AND owner = ?2")?;
                Ok(write.execute(params![held.sequence, self.owner, held.count])? > 0)
            }),
            Ending::Settle(settlement) => self.with(turn, settlement.receipt, |turn, held| {
                settle(turn, held, self.owner, &settlement.disposition)
            }),
        }
    }

    fn with(
        &self,
        turn: &mut Turn<'_>,
        receipt: Receipt,
        act: impl FnOnce(&mut Turn<'_>, Held) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<bool> {
        let held = turn.consumers.get(self.owner).and_then(|state| state.held(receipt));
        held.map_or(Ok(false), |held| act(turn, held))
    }
}

/// Each statement names the owner: what is not ours any more is left alone.
fn settle(turn: &mut Turn<'_>, held: Held, owner: i64, how: &Disposition) -> rusqlite::Result<bool> {
    const DELETE: &str = "DELETE FROM msg WHERE seq = ?1 AND owner = ?2";
    let ours = [held.sequence, owner];
    // As it was before it was taken, whether or not its start was written down.
    let before = held.count.saturating_sub(1);
    let rows = match how {
        Disposition::Ack => return Ok(turn.prepare(DELETE)?.execute(ours)? > 0),
        Disposition::DeadLetter(reason) => {
            bury(turn, ours, reason)?;
            return Ok(turn.prepare(DELETE)?.execute(ours)? > 0);
        }
        Disposition::Release => {
            turn.prepare("UPDATE msg SET owner = NULL, tries = ?3 WHERE seq = ?1 AND owner = ?2")?
                .execute(params![held.sequence, owner, before])?
        }
        Disposition::Interrupt => turn
            .prepare(
                "UPDATE msg SET owner = NULL, redelivered = 1, tries = ?3 WHERE seq = ?1 AND owner = ?2",
            )?
            .execute(params![held.sequence, owner, before])?,
        Disposition::Requeue => turn
            .prepare(
                "UPDATE msg SET owner = NULL, redelivered = 1, tries = ?3, seq = (SELECT max(seq) + 1 FROM msg)
                 WHERE seq = ?1 AND owner = ?2",
            )?
            .execute(params![held.sequence, owner, held.count])?,
        Disposition::Delay(until) => {
            let eta = Some(*until).filter(|until| *until > turn.now).map(Timestamp::as_micros);
            turn.prepare("UPDATE msg SET owner = NULL, eta = ?3, tries = ?4 WHERE seq = ?1 AND owner = ?2")?
                .execute(params![held.sequence, owner, eta, before])?
        }
    };
    turn.rings.messages |= rows > 0;
    Ok(rows > 0)
}

fn bury(turn: &Turn<'_>, [sequence, owner]: [i64; 2], reason: &Reason) -> rusqlite::Result<usize> {
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

/// The answers as they are kept: a line for each, `D`, `L`, or a letter for the part and why it was refused.
fn write_answers(answers: &[Committed]) -> String {
    let mut lines = String::with_capacity(answers.len() * 2);
    for answer in answers {
        match answer {
            Committed::Done => lines.push('D'),
            Committed::Lost => lines.push('L'),
            Committed::Refused(Refusal { part, why }) => {
                lines.push(match part {
                    Part::Record => 'R',
                    Part::FollowUp => 'F',
                    Part::Settlement => 'S',
                });
                lines.extend(why.chars().map(|letter| if letter == '\n' { ' ' } else { letter }));
            }
        }
        lines.push('\n');
    }
    lines
}

fn read_answers(lines: &str) -> Vec<Committed> {
    let read = |line: &str| {
        let mut letters = line.chars();
        let refused = |part, why: &str| Committed::Refused(Refusal { part, why: why.to_owned() });
        match letters.next() {
            Some('D') => Committed::Done,
            Some('R') => refused(Part::Record, letters.as_str()),
            Some('F') => refused(Part::FollowUp, letters.as_str()),
            Some('S') => refused(Part::Settlement, letters.as_str()),
            _ => Committed::Lost,
        }
    };
    lines.split_terminator('\n').map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept() {
        let refused = |part, why: &str| Committed::Refused(Refusal { part, why: why.to_owned() });
        let answers = [
            Committed::Done,
            Committed::Lost,
            refused(Part::Record, "too large: 5 MB"),
            refused(Part::FollowUp, ""),
            refused(Part::Settlement, "Ünsinn"),
        ];
        assert_eq!(read_answers(&write_answers(&answers)), answers);
        assert_eq!(
            read_answers(&write_answers(&[refused(Part::Record, "a\nb")])),
            [refused(Part::Record, "a b")]
        );
        assert_eq!(read_answers(""), []);
    }
}
