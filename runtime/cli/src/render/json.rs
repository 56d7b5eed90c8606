//! JSON for people: what fits the line stays on it, text is not escaped beyond what a terminal needs.

use rwork_protocol::json::Value;

/// Width that a line may have, in characters.
const WIDTH: usize = 88;
/// Blanks for each level.
const INDENT: usize = 2;

/// One line.
pub(crate) fn compact(value: &Value) -> String {
    let mut out = String::new();
    write_compact(&mut out, value);
    out
}

/// Several lines where one is too short.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write_pretty(&mut out, value, 0);
    out
}

fn write_pretty(out: &mut String, value: &Value, level: usize) {
    let line = compact(value);
    let used = out.rsplit('\n').next().unwrap_or_default().chars().count();
    if used + line.chars().count() <= WIDTH {
        out.push_str(&line);
        return;
    }
    match value {
        Value::Array(elements) => {
            write_block(out, ('[', ']'), level, elements, |out, element| {
                write_pretty(out, element, level + 1)
            });
        }
        Value::Object(entries) => {
            write_block(out, ('{', '}'), level, entries, |out, (name, value)| {
                write_text(out, name);
                out.push_str(": ");
                write_pretty(out, value, level + 1);
            });
        }
        _ => out.push_str(&line),
    }
}

fn write_block<T>(
    out: &mut String,
    brackets: (char, char),
    level: usize,
    parts: &[T],
    write: impl Fn(&mut String, &T),
) {
    out.push(brackets.0);
    for (place, part) in parts.iter().enumerate() {
        out.push_str(if place == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n(' ', INDENT * (level + 1)));
        write(out, part);
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', INDENT * level));
    out.push(brackets.1);
}

fn write_compact(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        Value::Array(elements) => {
            out.push('[');
            for (place, element) in elements.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                write_compact(out, element);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (place, (name, value)) in entries.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                write_text(out, name);
                out.push_str(": ");
                write_compact(out, value);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// A JSON string with every control character escaped, those above U+007F too: a terminal obeys them.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_control() => out.push_str(&format!("\\u{:04x}", control as u32)),
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_on_the_line() {
        let value = Value::parse(br#"{"a":[1,2,{"b":"\u00e9\u009b"}],"n":NaN}"#).unwrap();
        assert_eq!(pretty(&value), r#"{"a": [1, 2, {"b": "é\u009b"}], "n": NaN}"#);
    }

    #[test]
    fn what_does_not_is_laid_out() {
        let long = "x".repeat(60);
        let value = Value::parse(format!(r#"{{"a":["{long}","{long}"],"b":1}}"#).as_bytes()).unwrap();
        assert_eq!(
            pretty(&value),
            format!("{{\n  \"a\": [\n    \"{long}\",\n    \"{long}\"\n  ],\n  \"b\": 1\n}}")
        );
    }

    #[test]
    fn what_is_laid_out_is_still_json() {
        let text = format!("[[{}], \"\\u0000\"]", "123456789, ".repeat(30) + "1");
        let value = Value::parse(text.as_bytes()).unwrap();
        assert_eq!(Value::parse(pretty(&value).as_bytes()).unwrap(), value);
    }
}
