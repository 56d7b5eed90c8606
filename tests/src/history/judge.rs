//! The checker: what a history must not contain, and what it shows.

mod excuses;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rwork_protocol::State;

use super::{Decision, History, Line, Receipt};
#[cfg(test)]
use excuses::ACK_MS;
use excuses::explain;

/// Something that must not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Accepted, and nothing came of it: neither a result nor a dead letter.
    Lost(u64),
    /// Run, or answered, although it was never accepted.
    Phantom(u64),
    /// It ended otherwise than it should have.
    Ended(u64, String),
    /// It has a result, but never began.
    NeverRan(u64),
    /// It began more than once, and not only because its worker was killed.
    RanTwice(u64, String),
    /// A chain's step, or a retry, began more than once, and not only because its worker was killed.
    Doubled(u64, String),
    /// Messages are left in the queue.
    Left(u64),
}

/// What a history shows.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What must not have happened.
    pub faults: Vec<Fault>,
    /// Tasks that were accepted.
    pub accepted: usize,
    /// Tasks that began more than once, each for a good reason.
    pub ran_again: usize,
    /// Of these, the ones that had reached their end before the kill, but not their stored result.
    pub ended_unstored: usize,
    /// Tasks that a worker of Celery's has ended by losing its own connection, and what would have followed them.
    pub celerys_own: usize,
    /// Tasks that began again after a kill between their stored result and its ack.
    pub stored_unacked: usize,
    /// Lost by a worker of Celery's, as the server's account proves.
    pub dropped_by_kombu: usize,
    /// Sent while the server did not answer.
    pub unsure: usize,
    /// Messages that a killed worker held and another one was handed.
    pub redelivered: usize,
    /// Messages that were handed to another worker although the one that held them lives.
    pub taken_from_the_living: usize,
    /// The most deliveries that one message had.
    pub deliveries_max: u64,
    /// The longest time from a kill until a message that was held was handed to another worker. Of rwork's workers.
    pub redelivery_max: Duration,
    /// Which one that was, for people.
    pub slowest: String,
    /// The same of Celery's workers: its visibility timeout and more.
    pub celery_redelivery_max: Duration,
    /// The longest time from a kill until a message that was held began elsewhere, where nothing else was killed between.
    pub restart_max: Duration,
}

/// Judges a history of tasks that all should have succeeded, each with its own number as its result.
pub fn judge(history: &History) -> Verdict {
    let (accepted, unsure) = (history.accepted.len(), history.unsure.len());
    let mut verdict = Verdict { accepted, unsure, ..Verdict::default() };
    let starts = history.starts();
    verdict.judge_ends(history, &starts);
    verdict.judge_starts(history, &starts);
    verdict.judge_waits(history, &starts);
    if history.left > 0 {
        verdict.faults.push(Fault::Left(history.left));
    }
    verdict
}

type Starts<'a> = BTreeMap<u64, Vec<&'a Line>>;

impl Verdict {
    fn judge_ends(&mut self, history: &History, starts: &Starts<'_>) {
        for number in history.accepted.keys() {
            let record = history.records.get(number);
            if let Some(reason) = history.dead.get(number) {
                self.faults.push(Fault::Ended(*number, format!("dead letter: {reason}")));
            } else if history.is_celerys_own(*number) {
                self.celerys_own += 1;
            } else if let Some(record) = record {
                if record.status != State::Success || record.result != number.to_string().as_bytes() {
                    let result = String::from_utf8_lossy(&record.result);
                    self.faults.push(Fault::Ended(*number, format!("{}: {result}", record.status)));
                } else if !starts.contains_key(number) {
                    self.faults.push(Fault::NeverRan(*number));
                }
            } else if history.is_dropped_by_kombu(*number) {
                self.dropped_by_kombu += 1;
            } else {
                self.faults.push(Fault::Lost(*number));
            }
        }
    }

    fn judge_starts(&mut self, history: &History, starts: &Starts<'_>) {
        for (number, starts) in starts {
            if !history.is_known(*number) {
                self.faults.push(Fault::Phantom(*number));
            }
            for pair in starts.windows(2) {
                if let [first, second] = pair
                    && let Err(why) = explain(history, first, second)
                {
                    self.faults.push(history.twice(*number, why));
                }
            }
            let [earlier @ .., last] = starts.as_slice() else { continue };
            if earlier.is_empty() {
                continue;
            }
            self.ran_again += 1;
            let ended = |line: &&Line| history.ended(*number, &line.node);
            self.ended_unstored += usize::from(earlier.iter().any(ended));
            if let Some(stored) = history.stored(*number)
                && stored.as_millis() < last.at.as_millis()
            {
                // Of which of the earlier ones it is the result.
                let maker = earlier.iter().rfind(|start| start.at.as_millis() <= stored.as_millis());
                let was_unacked = |maker: &&Line| history.was_unacked(stored, maker, last);
                if history.was_doubled_by_celery(last) || maker.is_some_and(was_unacked) {
                    self.stored_unacked += 1;
                    continue;
                }
                let first = maker.map_or("nobody", |maker| maker.node.as_str());
                let why = format!("`{}` ran it although the result of `{first}` was stored", last.node);
                self.faults.push(history.twice(*number, why));
            }
        }
    }

    fn judge_waits(&mut self, history: &History, starts: &Starts<'_>) {
        let mut receipts: BTreeMap<u64, Vec<Receipt>> = BTreeMap::new();
        for receipt in history.receipts.iter().cloned().chain(history.receipts_of_celery()) {
            self.deliveries_max = self.deliveries_max.max(receipt.deliveries);
            receipts.entry(receipt.number).or_default().push(receipt);
        }
        for (number, mut holders) in receipts {
            holders.sort_by_key(|receipt| receipt.at);
            for pair in holders.windows(2) {
                let [holder, next] = pair else { continue };
                let killed = history.kill(&holder.node);
                let Some(kill) = killed.filter(|kill| kill.at.as_millis() <= next.at.as_millis()) else {
                    self.taken_from_the_living += 1;
                    continue;
                };
                self.redelivered += 1;
                let waited = next.at.since(kill.at);
                if history.is_celery(&holder.node) {
                    self.celery_redelivery_max = self.celery_redelivery_max.max(waited);
                    continue;
                }
                if waited > self.redelivery_max {
                    self.redelivery_max = waited;
                    let (from, to, at) = (&holder.node, &next.node, kill.at.to_iso());
                    self.slowest = format!("task {number}, from `{from}`, killed at {at}, to `{to}`");
                }
                let begun = starts.get(&number).into_iter().flatten().find(|line| line.node == next.node);
                if let Some(begun) = begun {
                    self.restart_max = self.restart_max.max(begun.at.since(kill.at));
                }
            }
        }
    }
}

impl Verdict {
    /// # Errors
    /// What must not have happened, the first few of it.
    pub fn clean(&self) -> anyhow::Result<()> {
        const SHOWN: usize = 20;
        let faults: Vec<String> = self.faults.iter().take(SHOWN).map(ToString::to_string).collect();
        anyhow::ensure!(
            faults.is_empty(),
            "{} fault(s) in the history:\n{}",
            self.faults.len(),
            faults.join("\n")
        );
        Ok(())
    }
}

impl Fault {
    /// The task that it is about.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Lost(number) | Self::Phantom(number) | Self::NeverRan(number) => Some(*number),
            Self::Ended(number, _) | Self::RanTwice(number, _) | Self::Doubled(number, _) => Some(*number),
            Self::Left(_) => None,
        }
    }
}

impl History {
    /// What is known of the tasks that have faults, and of their workers, for people.
    pub fn around(&self, verdict: &Verdict) -> String {
        // With those that they follow, which are what a doubled one comes from.
        let faults = verdict.faults.iter().filter_map(Fault::number);
        let numbers: BTreeSet<u64> = faults.flat_map(|number| self.line_of(number)).collect();
        let lines: Vec<&Line> = self.lines.iter().filter(|line| numbers.contains(&line.number)).collect();
        let receipts = self.receipts.iter().filter(|receipt| numbers.contains(&receipt.number));
        let receipts: Vec<&Receipt> = receipts.collect();
        let decisions = self.decisions.iter().filter(|decision| numbers.contains(&decision.number));
        let decisions: Vec<&Decision> = decisions.collect();
        let outages = self.beside.as_ref().map(|beside| &beside.outages);
        let (kills, stops) = (&self.kills, &self.stops);
        format!("{lines:#?}\n{receipts:#?}\n{decisions:#?}\n{kills:#?}\n{stops:#?}\n{outages:#?}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(number) => write!(f, "task {number} was accepted and lost"),
            Self::Phantom(number) => write!(f, "task {number} ran and was never accepted"),
            Self::Ended(number, how) => write!(f, "task {number} ended as {how}"),
            Self::NeverRan(number) => write!(f, "task {number} has a result and never ran"),
            Self::RanTwice(number, why) => write!(f, "task {number} ran twice: {why}"),
            Self::Doubled(number, why) => write!(f, "task {number} follows another one and ran twice: {why}"),
            Self::Left(count) => write!(f, "{count} message(s) are left in the queue"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  accepted                        {}", self.accepted)?;
        write!(f, "  faults                          {}", self.faults.len())?;
        if self.unsure > 0 || self.dropped_by_kombu > 0 {
            writeln!(f, "\n  sent, and nobody answered       {}", self.unsure)?;
            write!(f, "  lost by kombu, as proved        {}", self.dropped_by_kombu)?;
        }
        if self.celerys_own > 0 {
            write!(f, "\n  ended by Celery's lost connection {}", self.celerys_own)?;
        }
        if self.redelivered == 0 && self.ran_again == 0 {
            return Ok(());
        }
        let (again, unstored) = (self.ran_again, self.ended_unstored);
        writeln!(f, "\n  ran again after a kill          {again} ({unstored} had ended, unstored)")?;
        if self.stored_unacked > 0 {
            writeln!(f, "  of these, stored and not acked  {}", self.stored_unacked)?;
        }
        writeln!(f, "  redelivered after a kill        {}", self.redelivered)?;
        writeln!(f, "  taken from a living worker      {}", self.taken_from_the_living)?;
        writeln!(f, "  deliveries of one message, max  {}", self.deliveries_max)?;
        writeln!(f, "  kill to redelivery, max         {:.2} s", self.redelivery_max.as_secs_f64())?;
        writeln!(f, "    {}", self.slowest)?;
        if !self.celery_redelivery_max.is_zero() {
            let waited = self.celery_redelivery_max.as_secs_f64();
            writeln!(f, "  the same of Celery's workers    {waited:.2} s")?;
        }
        write!(f, "  kill to second start, max       {:.2} s", self.restart_max.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
