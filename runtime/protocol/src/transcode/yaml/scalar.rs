//! A scalar as JSON: PyYAML's safe constructor (`yaml/constructor.py`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::plain::Tag;
use super::{integer, time};
use crate::json::write_typed;
use crate::output::Output;
use crate::transcode::{TranscodeError, write_binary, write_double, write_text};

/// Appends a scalar of this tag. `at`: where it stands.
pub(super) fn write(output: &mut Output, tag: Tag, text: &str, at: usize) -> Result<(), TranscodeError> {
    let wrong = |expected: &'static str| wrong(expected, text, at);
    match tag {
        Tag::Null => output.push(b"null")?,
        Tag::Bool => output.push(truth(text).ok_or_else(|| wrong("a boolean"))?)?,
        Tag::Int => output.push(integer::decimal(text).ok_or_else(|| wrong("an integer"))?.as_bytes())?,
        Tag::Float => write_double(output, float(text).ok_or_else(|| wrong("a number"))?)?,
        Tag::Timestamp => {
            let typed = time::parse(text).and_then(|parts| parts.typed());
            let (name, value) = typed.ok_or_else(|| wrong("a date or a time"))?;
            let mut wrapped = Vec::new();
            write_typed(&mut wrapped, name, &value);
            output.push(&wrapped)?;
        }
        Tag::Binary => {
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = STANDARD.decode(packed).map_err(|_| wrong("base64"))?;
            write_binary(output, &bytes)?;
        }
        Tag::Str => write_text(output, text)?,
        Tag::Merge | Tag::Value => return Err(wrong("a value")),
    }
    Ok(())
}

/// An error that shows the beginning of what is there.
pub(super) fn wrong(expected: &'static str, text: &str, offset: usize) -> TranscodeError {
    const SHOWN_MAX: usize = 64;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    TranscodeError::Value { expected, found: format!("`{shown}`"), offset }
}

fn truth(text: &str) -> Option<&'static [u8]> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Some(b"true"),
        "no" | "false" | "off" => Some(b"false"),
        _ => None,
    }
}

fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_ascii_lowercase();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(&text)),
    };
    match digits {
        ".inf" => Some(sign * f64::INFINITY),
        ".nan" => Some(f64::NAN),
        _ if digits.contains(':') => Some(sign * sexagesimal(digits)?),
        _ => Some(sign * decimal(digits)?),
    }
}

fn decimal(digits: &str) -> Option<f64> {
    // Rust would take `inf` and `nan` as well.
    let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-');
    if digits.bytes().all(numeric) { digits.parse().ok() } else { None }
}

fn sexagesimal(digits: &str) -> Option<f64> {
    let mut base = 1.0;
    let mut sum = 0.0;
    for part in digits.rsplit(':') {
        sum += decimal(part)? * base;
        base *= 60.0;
    }
    Some(sum).filter(|sum: &f64| !sum.is_nan())
}
