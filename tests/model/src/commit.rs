//! Commits: numbered, fenced, each for itself.

use rwork_broker::{
    Batch, Commit, Committed, Disposition, Ending, Error, Part, Receipt, Refusal, Settlement,
};
use rwork_protocol::{State, Timestamp};

use crate::event::{Event, How};
use crate::member::{ConsumerId, Held, Line};
use crate::store::{Store, full, stale};

impl Store {
    pub(crate) fn commit(
        &mut self,
        line: Line,
        batch: &Batch,
        now: Timestamp,
    ) -> Result<Vec<Committed>, Error> {
        let member = self.known(line)?;
        if batch.number < member.last_number() || batch.number == 0 {
            return Err(stale(line));
        }
        if let Some((last, answers)) = &member.last
            && last.number == batch.number
        {
            let (answers, is_same) = (answers.clone(), last == batch);
            if !is_same {
                self.tell(Event::Broken(format!("{line:?} uses the number {} twice", batch.number)));
            }
            return Ok(answers);
        }
        if self.is_full && batch.commits.iter().any(adds) {
            return Err(full());
        }
        let commits = batch.commits.iter();
        let answers: Vec<_> = commits.map(|commit| self.commit_one(line.consumer, commit, now)).collect();
        if let Some(member) = self.members.get_mut(&line.consumer) {
            member.last = Some((batch.clone(), answers.clone()));
        }
        Ok(answers)
    }

    fn commit_one(&mut self, consumer: ConsumerId, commit: &Commit, now: Timestamp) -> Committed {
        if !commit.records.is_empty() && !self.rules.commits_records {
            self.tell(Event::Broken(format!("{consumer:?} commits records")));
        }
        let receipt = commit.ending.receipt();
        let held = receipt.map(|receipt| self.holds(consumer, receipt));
        if held == Some(None) {
            let is_final = |store: &&rwork_backend::Store| store.record.status == State::Success;
            let storable = commit.records.iter().filter(|store| !(self.rules.unstorable)(store));
            let finals: Vec<_> = storable.filter(is_final).cloned().collect();
            for store in &finals {
                self.put_record(store);
            }
            return Committed::Lost;
        }
        if let Err(refusal) = self.look_for_refusals(commit) {
            return Committed::Refused(refusal);
        }
        for store in &commit.records {
            self.put_record(store);
        }
        for publish in &commit.publish {
            // Looked at above.
            let _ = self.accept(publish, Some((consumer, receipt)), now);
        }
        match (&commit.ending, held.flatten()) {
            (Ending::Settle(settlement), Some(held)) => self.settle(consumer, &held, settlement, now),
            (Ending::Starting(receipt), Some(held)) => {
                if let Some(entry) = self.messages.get_mut(held.serial) {
                    entry.starts = held.count;
                }
                self.tell(Event::StartWritten { consumer, receipt: *receipt });
            }
            _ => {}
        }
        Committed::Done
    }

    fn holds(&self, consumer: ConsumerId, receipt: Receipt) -> Option<Held> {
        self.members.get(&consumer)?.held.get(&receipt).cloned()
    }

    fn look_for_refusals(&self, commit: &Commit) -> Result<(), Refusal> {
        if commit.records.iter().any(|store| (self.rules.unstorable)(store)) {
            return Err(Refusal { part: Part::Record, why: "not taken".to_owned() });
        }
        let refused = commit.publish.iter().find_map(|publish| self.queue_of(publish).err());
        refused.map_or(Ok(()), |why| Err(Refusal { part: Part::FollowUp, why }))
    }

    fn settle(&mut self, consumer: ConsumerId, held: &Held, settlement: &Settlement, now: Timestamp) {
        let Settlement { receipt, disposition, message, .. } = settlement;
        let serial = held.serial;
        if let Some(member) = self.members.get_mut(&consumer) {
            member.held.remove(receipt);
        }
        let how = match disposition {
            Disposition::Ack => How::Acked,
            Disposition::Requeue => How::Requeued,
            Disposition::Release => How::Released,
            Disposition::Interrupt => How::Interrupted,
            Disposition::Delay(_) => How::Delayed,
            Disposition::DeadLetter(reason) => How::Dead(reason.clone()),
        };
        self.tell(Event::Ended { serial, consumer, receipt: *receipt, how });
        let Some(entry) = self.messages.get_mut(serial) else { return };
        let is_kept = matches!(disposition, Disposition::Delay(_) | Disposition::DeadLetter(_));
        let is_same = message.as_ref().is_some_and(|message| {
            message.headers == entry.message.headers && message.body == entry.message.body
        });
        entry.redelivered |= matches!(disposition, Disposition::Requeue | Disposition::Interrupt);
        match disposition {
            Disposition::Requeue => entry.starts = held.count,
            // As it was before it was taken, whether or not its start was written down.
            Disposition::Release | Disposition::Interrupt | Disposition::Delay(_) => {
                entry.starts = held.count.saturating_sub(1);
            }
            Disposition::Ack | Disposition::DeadLetter(_) => {}
        }
        if is_kept && !is_same {
            self.tell(Event::Broken(format!("message {serial} is kept, and is another")));
        }
        match disposition {
            Disposition::Ack => self.messages.forget(serial),
            Disposition::Requeue => self.messages.put_at_end(serial),
            Disposition::Release | Disposition::Interrupt => self.messages.put_at_head(serial),
            Disposition::Delay(until) => self.messages.delay(serial, *until, now),
            Disposition::DeadLetter(reason) => self.messages.bury(serial, reason.clone()),
        }
    }
}

/// True if there must be room for it.
fn adds(commit: &Commit) -> bool {
    !commit.records.is_empty() || !commit.publish.is_empty()
}
