//! Sizes and durations as people write them: `"64MiB"`, `"20s"`, or plain numbers of bytes and seconds.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::strict::Setting;

/// A year: anything longer is a mistake in the unit, and sums of such durations can't overflow.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// A duration: a number of seconds (fractions allowed), or text with a unit (`ms`, `s`, `m`, `h`, `d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// A size: a number of bytes, or text with a unit (`KiB`, `MiB`, `GiB` in powers of 1024, `kB`, `MB`, `GB` in powers of
/// 1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Seconds {
    /// Reads `20s`, `1.5h`, `250ms` or a bare number of seconds.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("expected a duration such as `20s`, `500ms`, `5m` or `1h`, got `{}`", text.escape_debug())
        };
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let factor = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        Self::from_number(number * factor)
    }

    fn from_number(seconds: f64) -> Result<Self, String> {
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            return Err(format!("expected a duration of 0 to {SECONDS_MAX} seconds, got `{seconds}`"));
        }
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl ByteSize {
    /// Reads `64MiB`, `1.5 GiB` or a bare number of bytes.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "expected a size such as `64MiB`, `512KiB` or a number of bytes, got `{}`",
                text.escape_debug()
            )
        };
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        Self::from_number(number * factor as f64)
    }

    fn from_number(bytes: f64) -> Result<Self, String> {
        // Whole numbers up to 2^53 are exact in a double; larger sizes don't exist.
        const EXACT_MAX: f64 = (1_u64 << 53) as f64;
        if !(0.0..=EXACT_MAX).contains(&bytes) {
            return Err(format!("expected a size of 0 bytes or more, got `{bytes}`"));
        }
        Ok(Self(bytes as u64))
    }

    /// The size as the host counts memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A non-negative number and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        match [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
            .into_iter()
            .find(|(unit, _)| bytes >= *unit)
        {
            Some((unit, name)) if bytes % unit == 0 => write!(f, "{} {name}", bytes / unit),
            Some((unit, name)) => write!(f, "{:.1} {name}", bytes as f64 / unit as f64),
            None => write!(f, "{bytes} B"),
        }
    }
}

/// Both kinds are read alike: a number, or text.
struct Quantity<T> {
    expected: &'static str,
    number: fn(f64) -> Result<T, String>,
    text: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<T, E> {
        (self.number)(value as f64).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
        (self.number)(value as f64).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<T, E> {
        (self.number)(value).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<T, E> {
        (self.text)(value).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity {
            expected: "a number of seconds or a duration such as `20s`",
            number: Self::from_number,
            text: Self::parse,
        })
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Quantity {
            expected: "a number of bytes or a size such as `64MiB`",
            number: Self::from_number,
            text: Self::parse,
        })
    }
}

impl Setting for Seconds {}
impl Setting for ByteSize {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for bad in ["", "s", "20 parsecs", "-1s", "1s2", "1..5s", "9e9", "400d", "NaN", "inf"] {
            assert!(Seconds::parse(bad).is_err(), "{bad:?}");
        }
        let table =
            [("20s", 20_000), ("0", 0), ("1.5", 1_500), ("250ms", 250), ("5 m", 300_000), ("1h", 3_600_000)];
        for (text, milliseconds) in table {
            assert_eq!(Seconds::parse(text), Ok(Seconds(Duration::from_millis(milliseconds))), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for bad in ["", "MiB", "64M", "64 mib", "-1", "1e3", "99999999GiB"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad:?}");
        }
        let table = [
            ("64MiB", 64 << 20),
            ("1 kB", 1_000),
            ("1.5KiB", 1_536),
            ("12", 12),
            ("0B", 0),
            ("2GiB", 2 << 30),
        ];
        for (text, bytes) in table {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        assert_eq!(ByteSize(64 << 20).to_string(), "64 MiB");
        assert_eq!(ByteSize(1_536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(12).to_string(), "12 B");
    }
}
