//! Values of options: what may be written, and what it becomes in the declaration's JSON. Every failed expectation says
//! what was expected and what was found.

use std::fmt::Write;

use syn::spanned::Spanned;
use syn::{Expr, ExprLit, ExprUnary, Lit, UnOp};

/// Seconds in each unit that a duration may have.
const TIME_UNITS: [(&str, f64); 8] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("sec", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
];

/// Bytes in each unit that a size may have.
const SIZE_UNITS: [(&str, f64); 7] = [
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
];

/// The longest time that an option may name: a year, past which a number is more likely in the wrong unit.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// The most that 32-bit memory can hold.
const BYTES_MAX: f64 = 4_294_967_296.0;

/// A JSON string with its quotes.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => _ = write!(out, "\\u{:04x}", u32::from(control)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// `true` or `false`; a bare option name means `true`.
pub(crate) fn boolean(name: &str, value: &Expr) -> syn::Result<bool> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Bool(found), .. }) => Ok(found.value),
        other => Err(expected(name, "`true` or `false`", other)),
    }
}

/// A string that is not empty.
pub(crate) fn text(name: &str, value: &Expr) -> syn::Result<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(found), .. }) if !found.value().trim().is_empty() => {
            Ok(found.value())
        }
        other => Err(expected(name, "a string that is not empty", other)),
    }
}

/// A whole number within bounds.
pub(crate) fn integer(name: &str, value: &Expr, most: u32) -> syn::Result<u32> {
    let wanted = || expected(name, &format!("a whole number from 0 to {most}"), value);
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(found), .. }) => {
            found.base10_parse::<u32>().ok().filter(|number| *number <= most).ok_or_else(wanted)
        }
        _ => Err(wanted()),
    }
}

/// A number of seconds, or a string with units such as `"1h30m"`, as seconds.
pub(crate) fn seconds(name: &str, value: &Expr) -> syn::Result<f64> {
    let wanted = || {
        expected(name, "a number of seconds or a string such as `\"90s\"`, `\"500ms\"` or `\"1h30m\"`", value)
    };
    let found = number(value).or_else(|| string(value).and_then(|text| with_units(&text, &TIME_UNITS)));
    found.filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds)).ok_or_else(wanted)
}

/// A number of bytes, or a string with a unit such as `"64MiB"`, as bytes.
pub(crate) fn bytes(name: &str, value: &Expr) -> syn::Result<f64> {
    let wanted = || expected(name, "a number of bytes or a string such as `\"64MiB\"`, at most 4 GiB", value);
    let found = number(value).or_else(|| string(value).and_then(|text| with_units(&text, &SIZE_UNITS)));
    found.filter(|bytes| (1.0..=BYTES_MAX).contains(bytes) && bytes.fract() == 0.0).ok_or_else(wanted)
}

/// Celery's rate: a number of tasks per second, or `"N/s"`, `"N/m"`, `"N/h"`. As JSON.
pub(crate) fn rate(name: &str, value: &Expr) -> syn::Result<String> {
    let wanted = || expected(name, "tasks per second as a number, or a string such as `\"100/m\"`", value);
    if let Some(rate) = number(value).filter(|rate| *rate >= 0.0) {
        return Ok(json_number(rate));
    }
    let text = string(value).ok_or_else(wanted)?;
    let (count, unit) = text.split_once('/').unwrap_or((&text, "s"));
    let count_is_good = count.trim().parse::<f64>().is_ok_and(|count| count.is_finite() && count >= 0.0);
    if count_is_good && ["s", "m", "h"].contains(&unit.trim()) {
        Ok(json_string(&text))
    } else {
        Err(wanted())
    }
}

/// A list of names, as strings or as paths (`ValueError`).
pub(crate) fn names(name: &str, value: &Expr) -> syn::Result<Vec<String>> {
    let wanted = |at: &Expr| expected(name, "a list of names such as `[\"ConnectionError\"]`", at);
    let Expr::Array(list) = value else { return Err(wanted(value)) };
    list.elems
        .iter()
        .map(|item| match item {
            Expr::Path(path) => {
                path.path.segments.last().map(|last| last.ident.to_string()).ok_or_else(|| wanted(item))
            }
            other => string(other).filter(|text| !text.trim().is_empty()).ok_or_else(|| wanted(item)),
        })
        .collect()
}

/// Whether the value is `None` or `"none"`: the way to say "no limit".
pub(crate) fn is_none(value: &Expr) -> bool {
    match value {
        Expr::Path(path) => path.path.is_ident("None"),
        other => string(other).is_some_and(|text| text.eq_ignore_ascii_case("none")),
    }
}

/// A number in the shortest JSON.
pub(crate) fn json_number(number: f64) -> String {
    // Rust writes whole floats without a fraction, never in exponents: both are valid JSON.
    number.to_string()
}

/// "expected X, got Y", at the value.
pub(crate) fn expected(name: &str, wanted: &str, value: &Expr) -> syn::Error {
    let found = value.span().source_text().unwrap_or_else(|| "something else".to_owned());
    syn::Error::new(value.span(), format!("expected `{name}` to be {wanted}, got `{found}`"))
}

fn string(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(found), .. }) => Some(found.value()),
        _ => None,
    }
}

fn number(value: &Expr) -> Option<f64> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(found), .. }) => found.base10_digits().parse().ok(),
        Expr::Lit(ExprLit { lit: Lit::Float(found), .. }) => found.base10_digits().parse().ok(),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => number(expr).map(|number| -number),
        _ => None,
    }
}

/// The sum of parts such as `1h30m`; a lone number is in the base unit.
fn with_units(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let mut rest = text.trim();
    if let Ok(plain) = rest.parse::<f64>() {
        return Some(plain);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (count, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let end = tail.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        sum += count.parse::<f64>().ok()? * factor;
        rest = tail.trim_start();
    }
    (!text.trim().is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expr {
        syn::parse_str(text).unwrap()
    }

    #[test]
    fn durations_read_as_seconds() {
        for (text, wanted) in [
            ("-1", None),
            ("\"\"", None),
            ("\"20 parsecs\"", None),
            ("\"s\"", None),
            ("1e12", None),
            ("true", None),
            ("20", Some(20.0)),
            ("0", Some(0.0)),
            ("1.5", Some(1.5)),
            ("\"20\"", Some(20.0)),
            ("\"20s\"", Some(20.0)),
            ("\"500ms\"", Some(0.5)),
            ("\"1h30m\"", Some(5400.0)),
            ("\"1 h 30 min\"", Some(5400.0)),
            ("\"2d\"", Some(172_800.0)),
        ] {
            assert_eq!(seconds("time_limit", &parse(text)).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn sizes_read_as_bytes() {
        for (text, wanted) in [
            ("0", None),
            ("\"5GiB\"", None),
            ("\"0.3B\"", None),
            ("\"64 apples\"", None),
            ("65536", Some(65_536.0)),
            ("\"64MiB\"", Some(67_108_864.0)),
            ("\"64 mib\"", Some(67_108_864.0)),
            ("\"1.5KiB\"", Some(1536.0)),
            ("\"2MB\"", Some(2e6)),
        ] {
            assert_eq!(bytes("memory", &parse(text)).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn rates_are_celerys() {
        for (text, wanted) in [
            ("\"10/d\"", None),
            ("\"fast\"", None),
            ("-1", None),
            ("10", Some("10")),
            ("0.5", Some("0.5")),
            ("\"100/m\"", Some("\"100/m\"")),
            ("\"7\"", Some("\"7\"")),
        ] {
            assert_eq!(rate("rate_limit", &parse(text)).ok().as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn strings_are_escaped_as_json() {
        assert_eq!(json_string("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
