//! Words and how often they occur.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Counts words, large and small letters alike.
///
/// A sorted map and not a hashed one: a hash map draws its seed from the host, in every new instance.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    counts: BTreeMap<String, u64>,
    words: u64,
}

impl Counter {
    /// Counts the words of a text. A word is letters and digits, with apostrophes inside: `don't` is one.
    pub(crate) fn add(&mut self, text: &str) {
        let pieces = text
            .split(|character: char| !character.is_alphanumeric() && character != '\'' && character != '’');
        for word in pieces.map(|piece| piece.trim_matches(['\'', '’'])).filter(|word| !word.is_empty()) {
            self.words += 1;
            *self.counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }

    /// All words so far.
    pub(crate) fn words(&self) -> u64 {
        self.words
    }

    /// The most frequent ones, most frequent first, then by the alphabet.
    pub(crate) fn most_frequent(&self, most: usize) -> Vec<(String, u64)> {
        let mut sorted: Vec<_> = self.counts.iter().map(|(word, count)| (word.clone(), *count)).collect();
        sorted.sort_by_key(|(_, count)| Reverse(*count));
        sorted.truncate(most);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_letters_digits_and_inner_apostrophes() {
        for (text, wanted) in [
            ("", vec![]),
            ("--- '' ...", vec![]),
            ("Don't stop", vec![("don't", 1), ("stop", 1)]),
            ("'quoted'", vec![("quoted", 1)]),
            ("a b a, C c c", vec![("c", 3), ("a", 2), ("b", 1)]),
            ("2026-11-21", vec![("11", 1), ("2026", 1), ("21", 1)]),
            ("Äpfel äpfel", vec![("äpfel", 2)]),
        ] {
            let mut counter = Counter::default();
            counter.add(text);
            let found = counter.most_frequent(10);
            let found: Vec<(&str, u64)> = found.iter().map(|(word, count)| (word.as_str(), *count)).collect();
            assert_eq!(found, wanted, "{text}");
            assert_eq!(counter.words(), wanted.iter().map(|(_, count)| count).sum::<u64>());
        }
    }
}
