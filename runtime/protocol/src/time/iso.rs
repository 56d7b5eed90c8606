//! ISO 8601 as `dateutil.parser.isoparse` reads it, which Celery's workers use.

use chrono::{Datelike as _, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

/// What Python's `datetime` can tell: other years can't be told to anybody.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// Microseconds since the Unix epoch. What has no offset is in UTC.
///
/// `None` when it is none of the forms, no such day or time, or not between the years 1 and 9999 in UTC.
pub(super) fn micros(text: &str) -> Option<i64> {
    let mut rest = Rest(text.as_bytes());
    let mut day = common_date(&mut rest).or_else(|| {
        rest = Rest(text.as_bytes());
        uncommon_date(&mut rest)
    })?;
    let mut time = NaiveTime::MIN;
    let mut offset = TimeDelta::zero();
    if !rest.is_empty() {
        // Any one character may stand between date and time.
        rest.skip_separator()?;
        let (next_day, clock, east) = clock(&mut rest)?;
        day = day.checked_add_days(Days::new(u64::from(next_day)))?;
        (time, offset) = (clock, east);
    }
    let instant = NaiveDateTime::new(day, time).checked_sub_signed(offset)?;
    YEARS.contains(&instant.year()).then(|| instant.and_utc().timestamp_micros())
}

/// `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, `YYYYMMDD`.
fn common_date(rest: &mut Rest<'_>) -> Option<NaiveDate> {
    let year = i32::try_from(rest.number(4)?).ok()?;
    if rest.is_empty() {
        return NaiveDate::from_ymd_opt(year, 1, 1);
    }
    let dashed = rest.word(b'-');
    let month = rest.number(2)?;
    if rest.is_empty() {
        return if dashed { NaiveDate::from_ymd_opt(year, month, 1) } else { None };
    }
    if dashed && !rest.word(b'-') {
        return None;
    }
    let day = rest.number(2)?;
    NaiveDate::from_ymd_opt(year, month, day)
}

/// By week, `YYYY-Www-D` and its shorter forms, or by day of the year, `YYYY-DDD` and `YYYYDDD`.
fn uncommon_date(rest: &mut Rest<'_>) -> Option<NaiveDate> {
    let year = i32::try_from(rest.number(4)?).ok()?;
    let dashed = rest.word(b'-');
    if !rest.word(b'W') {
        return NaiveDate::from_yo_opt(year, rest.number(3)?);
    }
    let week = Some(rest.number(2)?).filter(|week| (1..=53).contains(week))?;
    let mut day = 1;
    if !rest.is_empty() {
        if rest.word(b'-') != dashed {
            return None;
        }
        day = Some(rest.number(1)?).filter(|day| (1..=7).contains(day))?;
    }
    // The fourth of January is always in the first week.
    let fourth = NaiveDate::from_ymd_opt(year, 1, 4)?;
    let monday = fourth.checked_sub_days(Days::new(u64::from(fourth.weekday().num_days_from_monday())))?;
    monday.checked_add_days(Days::new(u64::from((week - 1) * 7 + day - 1)))
}

/// `hh`, `hh:mm`, `hhmm`, `hh:mm:ss`, `hhmmss`, a fraction, an offset: whole days to add, the time of day, and its offset.
fn clock(rest: &mut Rest<'_>) -> Option<(u8, NaiveTime, TimeDelta)> {
    let hour = rest.number(2)?;
    let (mut minute, mut second, mut micros) = (0, 0, 0);
    if !rest.is_at_end_of_clock() {
        let coloned = rest.word(b':');
        minute = rest.number(2)?;
        if !rest.is_at_end_of_clock() {
            if coloned && !rest.word(b':') {
                return None;
            }
            second = rest.number(2)?;
            micros = rest.fraction()?;
        }
    }
    let offset = rest.offset()?;
    let midnight = hour == 24 && (minute, second, micros) == (0, 0, 0);
    let hour = if midnight { 0 } else { hour };
    Some((u8::from(midnight), NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?, offset))
}

/// What is left of the text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_at_end_of_clock(&self) -> bool {
        matches!(self.0.first(), None | Some(b'Z' | b'z' | b'+' | b'-'))
    }

    fn word(&mut self, word: u8) -> bool {
        let rest = self.0.strip_prefix(&[word]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// One character of ASCII that is no part of a number.
    fn skip_separator(&mut self) -> Option<()> {
        let (separator, rest) = self.0.split_first()?;
        self.0 = rest;
        (separator.is_ascii() && !separator.is_ascii_digit()).then_some(())
    }

    /// A number of exactly so many digits, at most nine.
    fn number(&mut self, length: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, digit| Some(number * 10 + char::from(*digit).to_digit(10)?))
    }

    /// Microseconds out of any number of digits, none of which need be there.
    fn fraction(&mut self) -> Option<u32> {
        if !self.word(b'.') && !self.word(b',') {
            return Some(0);
        }
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(length).filter(|(digits, _)| !digits.is_empty())?;
        self.0 = rest;
        let six = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
        Some(six.fold(0, |micros, digit| micros * 10 + u32::from(digit - b'0')))
    }

    /// `Z`, `±hh`, `±hhmm`, `±hh:mm` or nothing, and then the end.
    fn offset(&mut self) -> Option<TimeDelta> {
        if self.is_empty() {
            return Some(TimeDelta::zero());
        }
        if self.word(b'Z') || self.word(b'z') {
            return self.is_empty().then(TimeDelta::zero);
        }
        let sign = if self.word(b'-') { -1 } else { self.word(b'+').then_some(1)? };
        let hours = self.number(2)?;
        let minutes = if self.is_empty() {
            0
        } else {
            self.word(b':');
            self.number(2)?
        };
        let fits = self.is_empty() && hours < 24 && minutes < 60;
        fits.then(|| TimeDelta::minutes(sign * i64::from(hours * 60 + minutes)))
    }
}
