//! Points in time as messages and records carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

/// Microseconds since 1970-01-01T00:00:00Z: what Python's `datetime` can tell apart. May be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

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
    /// optional, date alone. `None` when it is none of these.
    pub fn parse_iso(text: &str) -> Option<Self> {
        let normal = text.trim().replacen(' ', "T", 1);
        let instant = DateTime::parse_from_rfc3339(&normal)
            .or_else(|_| DateTime::parse_from_str(&normal, "%Y-%m-%dT%H:%M:%S%.f%#z"))
            .map(|time| time.with_timezone(&Utc))
            .or_else(|_| {
                NaiveDateTime::parse_from_str(&normal, "%Y-%m-%dT%H:%M:%S%.f")
                    .or_else(|_| NaiveDateTime::parse_from_str(&normal, "%Y-%m-%dT%H:%M"))
                    .map(|time| time.and_utc())
            })
            .or_else(|_| {
                NaiveDate::parse_from_str(&normal, "%Y-%m-%d")
                    .map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc())
            })
            .ok()?;
        Some(Self(instant.timestamp_micros()))
    }

    /// `2026-11-20T10:18:49.628546+00:00`, as Celery writes `eta`, `expires` and `date_done`.
    pub fn to_iso(self) -> String {
        DateTime::<Utc>::from_timestamp_micros(self.0)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Micros, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_forms() {
        let noon = Some(Timestamp::from_millis(1_767_355_200_000));
        for text in [
            "2026-01-02T12:00:00+00:00",
            "2026-01-02T12:00:00Z",
            "2026-01-02T12:00:00",
            "2026-01-02 12:00:00.000000",
            "2026-01-02T14:00:00+0200",
            "2026-01-02T14:00:00+02",
            "2026-01-02T07:00:00.000-05:00",
        ] {
            assert_eq!(Timestamp::parse_iso(text), noon, "{text}");
        }
        assert_eq!(
            Timestamp::parse_iso("2026-01-02").map(Timestamp::to_iso).unwrap(),
            "2026-01-02T00:00:00.000000+00:00"
        );
        for text in ["", "not a date", "2026-13-01", "12:00"] {
            assert_eq!(Timestamp::parse_iso(text), None, "{text}");
        }
    }
}
