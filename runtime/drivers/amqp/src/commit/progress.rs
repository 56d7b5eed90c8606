//! What is done of the batch that is under way, so that it is done once however often the batch is sent.

use rwork_broker::{Batch, Committed, Error};

use crate::publish::Fate;

/// The last batch of a consumer.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    number: u64,
    /// By place in the batch.
    items: Vec<Item>,
}

#[derive(Clone, Debug, Default)]
struct Item {
    /// Of each message that it publishes, in order: the server has confirmed it.
    confirmed: Vec<bool>,
    answer: Option<Committed>,
}

impl Progress {
    /// Begins a batch, unless it is the one under way.
    ///
    /// # Errors
    /// A later one has been begun.
    pub(super) fn begin(&mut self, name: &str, batch: &Batch) -> Result<(), Error> {
        if batch.number < self.number {
            return Err(Error::LeaseLost { name: name.to_owned() });
        }
        if batch.number > self.number {
            self.number = batch.number;
            self.items = vec![Item::default(); batch.commits.len()];
        }
        Ok(())
    }

    pub(super) fn is_answered(&self, place: usize) -> bool {
        self.items.get(place).is_some_and(|item| item.answer.is_some())
    }

    /// The first answer stands.
    pub(super) fn answer(&mut self, place: usize, answer: Committed) {
        if let Some(item) = self.items.get_mut(place) {
            item.answer.get_or_insert(answer);
        }
    }

    pub(super) fn confirmed(&self, place: usize) -> &[bool] {
        self.items.get(place).map(|item| item.confirmed.as_slice()).unwrap_or_default()
    }

    /// Remembers which messages of a commit the server has.
    pub(super) fn confirm(&mut self, place: usize, fates: &[Fate]) {
        if let Some(item) = self.items.get_mut(place) {
            item.confirmed = fates.iter().map(|fate| matches!(fate, Fate::Kept)).collect();
        }
    }

    /// Every answer. What has none was not reached.
    pub(super) fn answers(&self) -> Vec<Committed> {
        self.items.iter().map(|item| item.answer.clone().unwrap_or(Committed::Lost)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u64, count: usize) -> Batch {
        let commit = rwork_broker::Commit {
            records: Vec::new(),
            publish: Vec::new(),
            ending: rwork_broker::Ending::Unfenced,
        };
        Batch { number, commits: vec![commit; count] }
    }

    #[test]
    fn a_repeated_batch_goes_on_and_an_earlier_one_is_stale() {
        let mut progress = Progress::default();
        progress.begin("w", &batch(3, 2)).unwrap();
        progress.confirm(1, &[Fate::Kept, Fate::Unknown]);
        progress.answer(0, Committed::Done);
        progress.answer(0, Committed::Lost);
        progress.begin("w", &batch(3, 2)).unwrap();
        assert_eq!(progress.confirmed(1), [true, false]);
        assert!(progress.is_answered(0) && !progress.is_answered(1));
        assert_eq!(progress.answers()[0], Committed::Done);
        assert!(matches!(progress.begin("w", &batch(2, 1)), Err(Error::LeaseLost { .. })));
        progress.begin("w", &batch(4, 1)).unwrap();
        assert!(!progress.is_answered(0) && progress.confirmed(0).is_empty());
    }
}
