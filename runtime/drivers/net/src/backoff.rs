//! Pauses between attempts to connect.

use std::time::Duration;

/// Pauses that double with each attempt up to the longest. Short at first, since a restart takes milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// Half of the longest there is.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after so many failed attempts, 0 being the first; up to twice as long by chance, so that processes don't come
    /// in step.
    pub fn pause(&self, attempts: u32) -> Duration {
        let pause = self.first.saturating_mul(1 << attempts.min(16)).min(self.longest);
        pause.mul_f64(1.0 + fastrand::f64())
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), longest: Duration::from_millis(2500) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let backoff = Backoff::default();
        for (attempts, least) in [(0, 50), (1, 100), (5, 1600), (6, 2500), (u32::MAX, 2500)] {
            let pause = backoff.pause(attempts).as_millis();
            assert!((least..=2 * least).contains(&pause), "{attempts}: {pause} ms");
        }
    }
}
