//! PyYAML's timestamps, written as Python's `isoformat` writes them.

use chrono::{NaiveDate, NaiveTime};

/// The parts of a timestamp as they stand in the text, in no way checked.
pub(super) struct Parts {
    year: i32,
    month: u32,
    day: u32,
    pub(super) time: Option<Time>,
}

pub(super) struct Time {
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    /// Minutes east of UTC.
    offset: Option<i32>,
}

/// Takes a text apart by the rule of `timestamp_regexp`. `None` when it is no timestamp.
pub(super) fn parse(text: &str) -> Option<Parts> {
    let mut rest = Rest(text);
    let year = rest.digits(4, 4)?;
    rest.word("-")?;
    let month = rest.digits(1, 2)?;
    rest.word("-")?;
    let day = rest.digits(1, 2)?;
    let date = Parts { year: i32::try_from(year).ok()?, month, day, time: None };
    if rest.0.is_empty() {
        return Some(date);
    }
    if rest.word("T").or_else(|| rest.word("t")).is_none() && rest.blanks() == 0 {
        return None;
    }
    let hour = rest.digits(1, 2)?;
    rest.word(":")?;
    let minute = rest.digits(2, 2)?;
    rest.word(":")?;
    let second = rest.digits(2, 2)?;
    let micros = if rest.word(".").is_some() { rest.micros() } else { 0 };
    let offset = rest.offset()?;
    rest.0.is_empty().then_some(Parts { time: Some(Time { hour, minute, second, micros, offset }), ..date })
}

impl Parts {
    /// The name of kombu's type and its value. `None` when there is no such day, time or offset.
    pub(super) fn typed(&self) -> Option<(&'static str, String)> {
        const DAY_MINUTES: i32 = 24 * 60;
        let date = NaiveDate::from_ymd_opt(self.year, self.month, self.day).filter(|_| self.year > 0)?;
        let Some(time) = &self.time else { return Some(("date", date.format("%Y-%m-%d").to_string())) };
        let clock = NaiveTime::from_hms_opt(time.hour, time.minute, time.second)?;
        let mut text = format!("{}T{}", date.format("%Y-%m-%d"), clock.format("%H:%M:%S"));
        if time.micros > 0 {
            text.push_str(&format!(".{:06}", time.micros));
        }
        if let Some(offset) = time.offset {
            let minutes = Some(offset.abs()).filter(|minutes| *minutes < DAY_MINUTES)?;
            let sign = if offset < 0 { '-' } else { '+' };
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        Some(("datetime", text))
    }
}

/// What is left of the text.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn word(&mut self, word: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let length = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        if length < least { None } else { digits.parse().ok() }
    }

    fn blanks(&mut self) -> usize {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let blanks = self.0.len() - rest.len();
        self.0 = rest;
        blanks
    }

    /// Any number of digits, of which six count.
    fn micros(&mut self) -> u32 {
        let rest = self.0.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = self.0.get(..self.0.len() - rest.len()).unwrap_or_default();
        self.0 = rest;
        let six = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
        six.fold(0, |micros, digit| micros * 10 + u32::from(digit - b'0'))
    }

    /// Nothing, `Z`, `+1`, `+01` or `+01:00`; blanks may come first. `None` when it is something else.
    fn offset(&mut self) -> Option<Option<i32>> {
        if self.0.is_empty() {
            return Some(None);
        }
        self.blanks();
        if self.word("Z").is_some() {
            return Some(Some(0));
        }
        let sign = if self.word("-").is_some() { -1 } else { self.word("+").map(|()| 1)? };
        let hours = self.digits(1, 2)?;
        let minutes = if self.word(":").is_some() { self.digits(2, 2)? } else { 0 };
        Some(Some(sign * i32::try_from(hours * 60 + minutes).ok()?))
    }
}
