//! Points in time as messages and records carry them.

mod iso;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

/// Microseconds since 1970-01-01T00:00:00Z: what Python's `datetime` can tell apart. May be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The first microsecond that Python's `datetime` can tell.
const YEAR_1: i64 = -62_135_596_800_000_000;

/// The last one.
const YEAR_9999: i64 = 253_402_300_799_999_999;

impl Timestamp {
    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads a clock's answer; before the epoch becomes the epoch.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This point and so much later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long from `earlier` to this point; zero when it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Any ISO 8601 form that Celery writes or accepts: offset `Z`, `±hh`, `±hhmm`, `±hh:mm` or none (then UTC), fraction
    /// optional, date alone. `None` when it is none of these, or not between the years 1 and 9999 in UTC.
    pub fn parse_iso(text: &str) -> Option<Self> {
        iso::micros(text).map(Self)
    }

    /// `2026-11-20T10:18:49.628546+00:00`, as Celery writes `eta`, `expires` and `date_done`. What is not between the years
    /// 1 and 9999 becomes the nearest time that is: Python could read no other.
    pub fn to_iso(self) -> String {
        DateTime::<Utc>::from_timestamp_micros(self.0.clamp(YEAR_1, YEAR_9999))
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Micros, false)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// Celery's worker reads these, and then fails on them: in UTC they are beyond what Python can tell.
    const TOO_FAR: [&str; 2] = ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"];

    /// `tests/golden/make.py` made these with the parser of Celery's worker.
    #[test]
    fn iso_forms_are_read_as_celery_reads_them() {
        for line in include_str!("../../tests/golden/times.tsv").lines() {
            let (text, micros) = line.split_once('\t').unwrap();
            let text = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
            let far = TOO_FAR.contains(&text.as_str());
            let expected = micros.parse().ok().filter(|_| !far);
            assert_eq!(Timestamp::parse_iso(&text).map(Timestamp::as_micros), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_python_s() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (1_795_169_929_628_546, "2026-11-20T10:18:49.628546+00:00"),
            (i64::MAX, "9999-12-31T23:59:59.999999+00:00"),
            (i64::MIN, "0001-01-01T00:00:00.000000+00:00"),
            (YEAR_1, "0001-01-01T00:00:00.000000+00:00"),
            (YEAR_9999, "9999-12-31T23:59:59.999999+00:00"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_iso(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(micros in YEAR_1..=YEAR_9999) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse_iso(&time.to_iso()), Some(time));
        }

        #[test]
        fn no_text_panics(text in "[0-9TWZ:.+, -]{0,36}", other in any::<String>()) {
            for text in [text, other] {
                if let Some(time) = Timestamp::parse_iso(&text) {
                    prop_assert_eq!(Timestamp::parse_iso(&time.to_iso()), Some(time));
                }
            }
        }
    }
}
