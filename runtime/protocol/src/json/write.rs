//! Writing scalars as Python's `json.dumps` does.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;

/// A JSON string with `text` in it.
pub fn string(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out.into()
}

/// Appends a JSON string in ASCII: what is not printable ASCII is escaped (Python's `ensure_ascii`).
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain_from = 0;
    for (place, character) in text.char_indices() {
        if is_plain(character) {
            continue;
        }
        out.extend_from_slice(text.get(plain_from..place).unwrap_or_default().as_bytes());
        write_escaped(out, character);
        plain_from = place + character.len_utf8();
    }
    out.extend_from_slice(text.get(plain_from..).unwrap_or_default().as_bytes());
    out.push(b'"');
}

fn is_plain(character: char) -> bool {
    matches!(character, ' '..='~') && character != '"' && character != '\\'
}

fn write_escaped(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        other => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                write(out, format_args!("\\u{unit:04x}"));
            }
        }
    }
}

/// Appends a float as Python writes it: `1.0`, `1e+16`, `1e-05`, `NaN`, `-Infinity`.
pub(crate) fn write_float(out: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if number.is_infinite() {
        return out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    // Rust's debug form has the shortest digits and changes to an exponent where Python does; only the exponent's own form
    // differs.
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => out.extend_from_slice(text.as_bytes()),
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
            write(out, format_args!("{digits}e{sign}{exponent:0>2}"));
        }
    }
}

/// Appends a number of seconds: an integer when it is whole.
pub(crate) fn write_seconds(out: &mut Vec<u8>, duration: Duration) {
    if duration.subsec_nanos() == 0 {
        write(out, format_args!("{}", duration.as_secs()));
    } else {
        write_float(out, duration.as_secs_f64());
    }
}

/// Writing into a vector never fails.
fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
