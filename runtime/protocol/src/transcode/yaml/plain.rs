//! What an unquoted scalar is: PyYAML's resolver, YAML 1.1 with its own rules (`yaml/resolver.py`).

/// What a scalar resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Timestamp,
    Merge,
    Value,
    Str,
    Binary,
}

/// The tag of a scalar that has none and is not quoted.
pub(super) fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ if is_bool(text) => Tag::Bool,
        _ if is_float(text) => Tag::Float,
        _ if is_int(text) => Tag::Int,
        _ if is_timestamp(text) => Tag::Timestamp,
        _ => Tag::Str,
    }
}

/// Each word in three cases: `yes`, `Yes`, `YES`.
fn is_bool(text: &str) -> bool {
    const WORDS: [[&str; 3]; 6] = [
        ["yes", "Yes", "YES"],
        ["no", "No", "NO"],
        ["true", "True", "TRUE"],
        ["false", "False", "FALSE"],
        ["on", "On", "ON"],
        ["off", "Off", "OFF"],
    ];
    WORDS.iter().any(|word| word.contains(&text))
}

fn is_int(text: &str) -> bool {
    let digits = unsigned(text);
    if let Some(digits) = digits.strip_prefix("0b") {
        return some(digits, |byte| matches!(byte, b'0' | b'1' | b'_'));
    }
    if let Some(digits) = digits.strip_prefix("0x") {
        return some(digits, |byte| byte.is_ascii_hexdigit() || byte == b'_');
    }
    if let Some(digits) = digits.strip_prefix('0') {
        return digits.bytes().all(|byte| matches!(byte, b'0'..=b'7' | b'_'));
    }
    let (first, sixties) = digits.split_once(':').map_or((digits, None), |(first, rest)| (first, Some(rest)));
    is_number(first) && sixties.is_none_or(|sixties| sixties.split(':').all(is_sixty))
}

fn is_float(text: &str) -> bool {
    let digits = unsigned(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, fraction)) = digits.split_once('.') else { return false };
    match whole.split_once(':') {
        Some((first, sixties)) => {
            is_number(first) && sixties.split(':').all(is_sixty) && fraction.bytes().all(is_digit)
        }
        // Without a digit before the point there is no sign either.
        None if whole.is_empty() => {
            text == digits && fraction.starts_with(|c: char| c.is_ascii_digit()) && is_fraction(fraction)
        }
        None => is_number(whole) && is_fraction(fraction),
    }
}

/// Digits, then perhaps an exponent, whose sign can't be left out.
fn is_fraction(text: &str) -> bool {
    let Some((digits, exponent)) = text.split_once(['e', 'E']) else { return text.bytes().all(is_digit) };
    digits.bytes().all(is_digit)
        && exponent.strip_prefix(['+', '-']).is_some_and(|digits| some(digits, |byte| byte.is_ascii_digit()))
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(is_digit)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

/// `[0-5]?[0-9]`
fn is_sixty(text: &str) -> bool {
    match text.as_bytes() {
        [digit] => digit.is_ascii_digit(),
        [ten, digit] => matches!(ten, b'0'..=b'5') && digit.is_ascii_digit(),
        _ => false,
    }
}

fn some(text: &str, is: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(is)
}

/// A date alone must have all its digits.
fn is_timestamp(text: &str) -> bool {
    super::time::parse(text).is_some_and(|parsed| parsed.time.is_some() || text.len() == "2026-01-02".len())
}
