//! Arguments for people: Python's `repr`, bounded (`celery/utils/saferepr.py`). Purely cosmetic.

use jiter::{Jiter, NumberAny, NumberInt, Peek};

use crate::json::write_float;

/// Longest text, in characters; what is over is cut (Celery's `argsrepr_maxsize`).
pub const CHARACTERS_MAX: usize = 1024;

/// Containers nested deeper than this are shown as `[...]` (Celery's `task_repr_maxlevels`).
pub const LEVELS_MAX: usize = 3;

/// `argsrepr`: an array as a tuple, `(2, 'x')`. Empty when `array` is not JSON.
pub fn args(array: &[u8]) -> String {
    render(array, true)
}

/// `kwargsrepr`: `{'y': 3}`. Empty when `object` is not JSON.
pub fn kwargs(object: &[u8]) -> String {
    render(object, false)
}

/// Any value. Empty when `value` is not JSON.
pub fn value(value: &[u8]) -> String {
    render(value, false)
}

fn render(value: &[u8], tuple: bool) -> String {
    let mut printer =
        Printer { jiter: Jiter::new(value).with_allow_inf_nan(), out: String::new(), left: CHARACTERS_MAX };
    match printer.value(0, tuple) {
        Ok(()) | Err(Stop::Full) => printer.out,
        Err(Stop::Invalid) => String::new(),
    }
}

enum Stop {
    /// The text is long enough.
    Full,
    /// Not JSON.
    Invalid,
}

impl From<jiter::JiterError> for Stop {
    fn from(_: jiter::JiterError) -> Self {
        Self::Invalid
    }
}

struct Printer<'a> {
    jiter: Jiter<'a>,
    out: String,
    /// Characters that may still be added.
    left: usize,
}

impl Printer<'_> {
    fn value(&mut self, level: usize, tuple: bool) -> Result<(), Stop> {
        let peek = self.jiter.peek()?;
        match peek {
            Peek::Null => {
                self.jiter.known_null()?;
                self.push("None");
            }
            Peek::True | Peek::False => {
                let text = if self.jiter.known_bool(peek)? { "True" } else { "False" };
                self.push(text);
            }
            Peek::String => {
                let text = quote(self.jiter.known_str()?, self.left);
                self.push(&text);
            }
            Peek::Array => return self.array(level, tuple),
            Peek::Object => return self.object(level),
            _ => {
                let text = number(&self.jiter.known_number(peek)?);
                self.push(&text);
            }
        }
        Ok(())
    }

    fn array(&mut self, level: usize, tuple: bool) -> Result<(), Stop> {
        let (open, close) = if tuple { ("(", ")") } else { ("[", "]") };
        if level >= LEVELS_MAX {
            self.jiter.known_skip(Peek::Array)?;
            self.push("[...]");
            return Ok(());
        }
        self.push(open);
        let mut length = 0;
        let mut next = self.jiter.known_array()?;
        while next.is_some() {
            self.element(length, close, |printer| printer.value(level + 1, false))?;
            length += 1;
            next = self.jiter.array_step()?;
        }
        self.push(if tuple && length == 1 { ",)" } else { close });
        Ok(())
    }

    fn object(&mut self, level: usize) -> Result<(), Stop> {
        if level >= LEVELS_MAX {
            self.jiter.known_skip(Peek::Object)?;
            self.push("{...}");
            return Ok(());
        }
        self.push("{");
        let mut length = 0;
        let left = self.left;
        let mut key = self.jiter.known_object()?.map(|key| quote(key, left));
        while let Some(text) = key {
            self.element(length, "}", |printer| {
                printer.push(&text);
                printer.push(": ");
                printer.value(level + 1, false)
            })?;
            length += 1;
            let left = self.left;
            key = self.jiter.next_key()?.map(|key| quote(key, left));
        }
        self.push("}");
        Ok(())
    }

    /// Prints one element, or the end of the text when there is no room; brackets are closed either way.
    fn element(
        &mut self,
        place: usize,
        close: &str,
        print: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        if self.left == 0 {
            self.out.push_str(if place > 0 { ", ..." } else { "..." });
            self.out.push_str(close);
            return Err(Stop::Full);
        }
        if place > 0 {
            self.push(", ");
        }
        let printed = print(self);
        if matches!(printed, Err(Stop::Full)) {
            self.out.push_str(close);
        }
        printed
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.left = self.left.saturating_sub(text.chars().count());
    }
}

/// `'it\'s'`, cut after about `left` characters.
fn quote(text: &str, left: usize) -> String {
    let mut out = String::with_capacity(text.len().min(left) + 2);
    out.push('\'');
    for (place, character) in text.chars().enumerate() {
        if place >= left {
            out.push_str("...");
            break;
        }
        if character == '\'' {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('\'');
    out
}

fn number(number: &NumberAny) -> String {
    match number {
        NumberAny::Int(NumberInt::Int(number)) => number.to_string(),
        NumberAny::Int(NumberInt::BigInt(number)) => number.to_string(),
        NumberAny::Float(number) => python_float(*number),
    }
}

fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    let mut out = Vec::new();
    write_float(&mut out, number);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_shows_it() {
        for (json, text) in [
            ("[]", "()"),
            ("[2]", "(2,)"),
            ("[1, 2]", "(1, 2)"),
            ("[\"it's\", null, true, false]", r"('it\'s', None, True, False)"),
            ("[[1, [2, [3, [4]]]]]", "([1, [2, [...]]],)"),
            ("[{\"a\": {\"b\": {\"c\": 1}}}]", "({'a': {'b': {...}}},)"),
            ("[1.0, 1e22, NaN, -Infinity]", "(1.0, 1e+22, nan, -inf)"),
            ("[123456789012345678901234567890]", "(123456789012345678901234567890,)"),
            ("[\"\\u00e9\"]", "('é',)"),
            ("not json", ""),
        ] {
            assert_eq!(args(json.as_bytes()), text, "{json}");
        }
        assert_eq!(kwargs(b"{\"y\": 3, \"z\": [1]}"), "{'y': 3, 'z': [1]}");
        assert_eq!(kwargs(b"{}"), "{}");
        assert_eq!(value(b"[1, 2]"), "[1, 2]");
    }

    #[test]
    fn what_is_long_is_cut_and_closed() {
        let numbers: Vec<String> = (1000..3000).map(|n| n.to_string()).collect();
        let text = args(format!("[{}]", numbers.join(", ")).as_bytes());
        assert!(text.ends_with(", ...)") && text.starts_with("(1000, 1001, "), "{text}");
        assert!(text.len() <= CHARACTERS_MAX + 16, "{}", text.len());
        let nested = args(format!("[{{\"k\": [{}]}}]", numbers.join(", ")).as_bytes());
        assert!(nested.ends_with(", ...]})"), "{nested}");
        let long = args(format!("[\"{}\"]", "é".repeat(5000)).as_bytes());
        assert!(long.ends_with("...',)") && long.chars().count() < CHARACTERS_MAX + 16, "{long}");
    }
}
