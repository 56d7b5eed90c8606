//! One setting's value before it is understood: text from the environment or a flag, or a value of the file.

use std::time::Duration;

use super::document::Value;

/// What a value should have been, for `expected … to be …`.
pub(crate) type Expected = String;

/// A value as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    /// From the environment or the command line.
    Word(&'a str),
    /// From the file.
    Toml(&'a Value),
}

/// Longest duration that is taken, in seconds: 100 years. Beyond it clocks overflow.
const SECONDS_MAX: f64 = 100.0 * 365.25 * 86_400.0;

impl Raw<'_> {
    /// The value as an error shows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Word(word) => (*word).to_owned(),
            Self::Toml(value) => value.to_string(),
        }
    }

    /// Any text that is not empty.
    pub(crate) fn text(&self) -> Result<String, Expected> {
        let text = match self {
            Self::Word(word) => (*word).to_owned(),
            Self::Toml(Value::Text(text)) => text.clone(),
            Self::Toml(_) => return Err("a string".to_owned()),
        };
        if text.is_empty() { Err("a non-empty string".to_owned()) } else { Ok(text) }
    }

    /// `true` or `false`; the environment may say 1, 0, yes, no, on, off.
    pub(crate) fn flag(&self) -> Result<bool, Expected> {
        match self {
            Self::Toml(Value::Flag(flag)) => Ok(*flag),
            Self::Word(word) => match word.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Ok(true),
                "0" | "false" | "no" | "off" => Ok(false),
                _ => Err("true or false".to_owned()),
            },
            Self::Toml(_) => Err("true or false".to_owned()),
        }
    }

    /// A whole number within a range.
    pub(crate) fn count(&self, min: u64, max: u64) -> Result<u64, Expected> {
        let number = match self {
            Self::Toml(Value::Integer(number)) => u64::try_from(*number).ok(),
            Self::Word(word) => word.parse().ok(),
            Self::Toml(_) => None,
        };
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| format!("a whole number in {min}..={max}"))
    }

    /// Seconds, fractions too; zero means none.
    pub(crate) fn seconds(&self) -> Result<Option<Duration>, Expected> {
        let expected = || "a number of seconds (0: none)".to_owned();
        #[allow(clippy::cast_precision_loss, reason = "a duration of 2^53 seconds is refused just below")]
        let seconds = match self {
            Self::Toml(Value::Integer(number)) => *number as f64,
            Self::Toml(Value::Float(number)) => *number,
            Self::Word(word) => word.parse().map_err(|_| expected())?,
            Self::Toml(_) => return Err(expected()),
        };
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            return Err(expected());
        }
        Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds)))
    }

    /// Bytes: a whole number, or text with a unit (`256 MiB`, `1 GB`, `64k`).
    pub(crate) fn bytes(&self) -> Result<usize, Expected> {
        let expected = || "a number of bytes, such as 268435456 or \"256 MiB\"".to_owned();
        let bytes = match self {
            Self::Toml(Value::Integer(number)) => usize::try_from(*number).ok(),
            Self::Toml(Value::Text(text)) => parse_bytes(text),
            Self::Word(word) => parse_bytes(word),
            Self::Toml(_) => None,
        };
        bytes.filter(|bytes| *bytes > 0).ok_or_else(expected)
    }

    /// Texts: an array, or words with commas between them.
    pub(crate) fn texts(&self) -> Result<Vec<String>, Expected> {
        let expected = || "an array of strings".to_owned();
        let texts: Vec<String> = match self {
            Self::Word(word) => word.split(',').map(|part| part.trim().to_owned()).collect(),
            Self::Toml(Value::List(items)) => items
                .iter()
                .map(|item| Raw::Toml(&item.value).text().map_err(|_| expected()))
                .collect::<Result<_, _>>()?,
            Self::Toml(_) => return Err(expected()),
        };
        if texts.iter().any(String::is_empty) { Err(expected()) } else { Ok(texts) }
    }

    /// One of a few words.
    pub(crate) fn choice(&self, words: &[&'static str]) -> Result<&'static str, Expected> {
        let expected = || format!("one of {}", words.join(", "));
        let text = self.text().map_err(|_| expected())?;
        words.iter().find(|word| word.eq_ignore_ascii_case(&text)).copied().ok_or_else(expected)
    }
}

/// `256 MiB` as bytes. Units of 1024 with an `i` or alone (`k`, `M`, `G`), of 1000 with a `B` (`kB`, `MB`, `GB`).
pub(crate) fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// Bytes for people: `256 MiB`, `1.4 KiB`, `12 bytes`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} {}", if bytes == 1 { "byte" } else { "bytes" });
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    if amount.fract() == 0.0 { format!("{amount} {unit}") } else { format!("{amount:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        let check = |text: &str, expect| assert_eq!(parse_bytes(text), expect, "{text}");
        check("", None);
        check("MiB", None);
        check("1 parsec", None);
        check("-1", None);
        check("99999999999999999999", None);
        check("18446744073709551615 GiB", None);
        check("512", Some(512));
        check("256 MiB", Some(256 << 20));
        check("64k", Some(64 << 10));
        check("1GB", Some(1_000_000_000));
    }

    #[test]
    fn bytes_for_people() {
        let check = |bytes, expect: &str| assert_eq!(show_bytes(bytes), expect);
        check(1, "1 byte");
        check(1023, "1023 bytes");
        check(1024, "1 KiB");
        check(1433, "1.4 KiB");
        check(256 << 20, "256 MiB");
        check(1 << 40, "1 TiB");
    }

    #[test]
    fn seconds_have_bounds() {
        assert_eq!(Raw::Word("-1").seconds().unwrap_err(), "a number of seconds (0: none)");
        assert!(Raw::Word("nan").seconds().is_err());
        assert!(Raw::Word("1e300").seconds().is_err());
        assert_eq!(Raw::Word("0").seconds(), Ok(None));
        assert_eq!(Raw::Toml(&Value::Float(0.25)).seconds(), Ok(Some(Duration::from_millis(250))));
    }

    #[test]
    fn counts_and_flags() {
        assert_eq!(Raw::Word("0").count(1, 9).unwrap_err(), "a whole number in 1..=9");
        assert!(Raw::Toml(&Value::Integer(-1)).count(0, 9).is_err());
        assert!(Raw::Toml(&Value::Text("1".into())).flag().is_err());
        assert_eq!(Raw::Word("on").flag(), Ok(true));
        assert_eq!(Raw::Word("a, b").texts(), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(Raw::Word("a,,b").texts().is_err());
    }
}
