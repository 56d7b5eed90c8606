//! Bytes that are made out of a message's: never more than a limit of them, whatever the message claims.

/// More would have been made than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} bytes, found more")]
pub struct Overflow {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Grows to what was written, and holds back what is over the limit. Its capacity never passes the limit either.
///
/// What is written counts even after it was cut off again, so that the limit bounds the work too.
#[derive(Debug)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    limit: usize,
    written: usize,
}

impl Output {
    /// `guess`: how much will be written, most likely.
    pub(crate) fn new(limit: usize, guess: usize) -> Self {
        Self { bytes: Vec::with_capacity(guess.min(limit)), limit, written: 0 }
    }

    pub(crate) fn push(&mut self, more: &[u8]) -> Result<(), Overflow> {
        self.reserve(more.len())?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Repeats what stands in `range` already.
    pub(crate) fn repeat(&mut self, range: std::ops::Range<usize>) -> Result<(), Overflow> {
        self.reserve(range.len())?;
        if range.end <= self.bytes.len() && range.start <= range.end {
            self.bytes.extend_from_within(range);
        }
        Ok(())
    }

    /// Lets `write` append to the bytes; it is known to write at most `at_most`.
    pub(crate) fn write(&mut self, at_most: usize, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Overflow> {
        let before = self.bytes.len();
        self.reserve(at_most)?;
        write(&mut self.bytes);
        let unused = at_most.saturating_sub(self.bytes.len() - before);
        self.written = self.written.saturating_sub(unused);
        Ok(())
    }

    /// Counts work that left nothing behind.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Overflow> {
        self.written = self.written.saturating_add(bytes);
        if self.written > self.limit { Err(Overflow { limit: self.limit }) } else { Ok(()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn tail(&self, from: usize) -> &[u8] {
        self.bytes.get(from..).unwrap_or_default()
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    pub(crate) fn into_bytes(self) -> bytes::Bytes {
        self.bytes.into()
    }

    fn reserve(&mut self, more: usize) -> Result<(), Overflow> {
        self.charge(more)?;
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let target = needed.max(self.bytes.capacity().saturating_mul(2)).min(self.limit);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn neither_length_nor_capacity_passes_the_limit(
            limit in 0_usize..5000,
            guess in any::<usize>(),
            pieces in prop::collection::vec((0_usize..700, any::<bool>()), 0..40),
        ) {
            let mut output = Output::new(limit, guess);
            let mut written = 0;
            for (length, repeat) in pieces {
                let length = if repeat { length.min(output.len()) } else { length };
                let done = if repeat { output.repeat(0..length) } else { output.push(&vec![b'x'; length]) };
                written += length;
                prop_assert_eq!(done.is_ok(), written <= limit);
                prop_assert!(output.bytes.capacity() <= limit);
                if done.is_err() {
                    break;
                }
                prop_assert_eq!(output.len(), written);
            }
        }
    }

    #[test]
    fn what_was_cut_off_still_counts() {
        let mut output = Output::new(10, 0);
        output.push(b"12345678").unwrap();
        output.truncate(0);
        assert_eq!(output.push(b"123"), Err(Overflow { limit: 10 }));
        let mut output = Output::new(10, 0);
        output.write(10, |out| out.extend_from_slice(b"1")).unwrap();
        assert_eq!(output.push(b"123456789"), Ok(()));
        assert_eq!(output.tail(8), b"89");
        assert_eq!(output.charge(1), Err(Overflow { limit: 10 }));
    }
}
