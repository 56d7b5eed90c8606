//! Arguments for people: Python's `repr`, bounded (`celery/utils/saferepr.py`). Purely cosmetic.

use std::borrow::Cow;

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
    let jiter = Jiter::new(value).with_allow_inf_nan();
    let mut printer = Printer { jiter, out: String::new(), left: CHARACTERS_MAX as isize, open: Vec::new() };
    match printer.value(tuple) {
        Ok(()) => printer.out,
        Err(Stop::Full) => printer.close_all(value),
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
    /// Characters that may still be added; below zero once the last piece was longer than that.
    left: isize,
    /// Containers that are open, each by whether it is a tuple, an array or an object, and by its length so far.
    open: Vec<(Shape, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Tuple,
    Array,
    Object,
}

impl Printer<'_> {
    fn value(&mut self, tuple: bool) -> Result<(), Stop> {
        let peek = self.jiter.peek()?;
        match peek {
            Peek::Null => {
                self.jiter.known_null()?;
                self.push("None")
            }
            Peek::True | Peek::False => {
                let text = if self.jiter.known_bool(peek)? { "True" } else { "False" };
                self.push(text)
            }
            Peek::String => {
                let text = quote(self.jiter.known_str()?, self.left);
                self.push_whole(&text)
            }
            Peek::Array => self.container(if tuple { Shape::Tuple } else { Shape::Array }),
            Peek::Object => self.container(Shape::Object),
            _ => {
                let text = number(&self.jiter.known_number(peek)?);
                self.push(&text)
            }
        }
    }

    fn container(&mut self, shape: Shape) -> Result<(), Stop> {
        let level = self.open.len();
        if level >= LEVELS_MAX {
            self.jiter.next_skip()?;
            return self.push_whole(if shape == Shape::Object { "{...}" } else { "[...]" });
        }
        self.push_whole(match shape {
            Shape::Tuple => "(",
            Shape::Array => "[",
            Shape::Object => "{",
        })?;
        self.open.push((shape, 0));
        if shape == Shape::Object {
            self.entries()?
        } else {
            self.elements()?
        }
        self.close();
        Ok(())
    }

    fn elements(&mut self) -> Result<(), Stop> {
        let mut next = self.jiter.next_array()?;
        while next.is_some() {
            self.separate()?;
            self.value(false)?;
            next = self.jiter.array_step()?;
        }
        Ok(())
    }

    fn entries(&mut self) -> Result<(), Stop> {
        let left = self.left;
        let mut next = self.jiter.next_object()?.map(|key| beginning(key, left));
        while let Some(key) = next {
            self.separate()?;
            self.push_whole(&quote(&key, self.left))?;
            self.push_whole(": ")?;
            self.value(false)?;
            let left = self.left;
            next = self.jiter.next_key()?.map(|key| beginning(key, left));
        }
        Ok(())
    }

    /// A comma before all elements but the first, which is counted.
    fn separate(&mut self) -> Result<(), Stop> {
        let Some((_, length)) = self.open.last_mut() else { return Ok(()) };
        *length += 1;
        if *length > 1 { self.push_whole(", ") } else { Ok(()) }
    }

    /// Ends a container; brackets are closed whether there is room or not, and don't count once there is none.
    fn close(&mut self) {
        let closing = match self.open.pop() {
            Some((Shape::Tuple, 1)) => ",)",
            Some((Shape::Tuple, _)) => ")",
            Some((Shape::Array, _)) => "]",
            Some((Shape::Object, _)) => "}",
            None => return,
        };
        self.out.push_str(closing);
        if self.left > 0 {
            self.left -= closing.len() as isize;
        }
    }

    /// Something was left out: says so, and closes what is open.
    fn close_all(mut self, value: &[u8]) -> String {
        self.out.push_str(", ...");
        if let Some((Shape::Tuple, length)) = self.open.first_mut() {
            *length = if is_single(value) { 1 } else { 2 };
        }
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }

    /// A piece that may be cut.
    fn push(&mut self, text: &str) -> Result<(), Stop> {
        let text = truncate(text, self.left);
        self.push_whole(&text)
    }

    fn push_whole(&mut self, text: &str) -> Result<(), Stop> {
        if self.left <= 0 {
            return Err(Stop::Full);
        }
        self.out.push_str(text);
        self.left -= text.chars().count() as isize;
        Ok(())
    }
}

/// Whether an array has one element; only that decides how a tuple is closed.
fn is_single(array: &[u8]) -> bool {
    let mut jiter = Jiter::new(array).with_allow_inf_nan();
    let mut second = || {
        jiter.next_array().ok()??;
        jiter.next_skip().ok()?;
        jiter.array_step().ok()?
    };
    second().is_none()
}

/// As much of a key as can be shown, and a little more, by which it is seen that it was cut.
fn beginning(key: &str, left: isize) -> String {
    key.chars().take(usize::try_from(left).unwrap_or(0) + 1).collect()
}

/// Cuts what does not leave room at the last blank within (`celery/utils/text.py: truncate`).
fn truncate(text: &str, left: isize) -> Cow<'_, str> {
    let room = usize::try_from(left).unwrap_or(0);
    let Some(last) = room.checked_sub(1) else { return Cow::Borrowed(text) };
    let Some((_, last)) = text.char_indices().map(|(start, c)| (start, start + c.len_utf8())).nth(last)
    else {
        return Cow::Borrowed(text);
    };
    let kept = text.get(..last).unwrap_or_default();
    let kept = kept.rsplit_once(' ').map_or(kept, |(kept, _)| kept);
    Cow::Owned(format!("{kept}..."))
}

/// `'it\'s'`, cut after about `left` characters.
fn quote(text: &str, left: isize) -> String {
    format!("'{}'", truncate(text, left).replace('\'', "\\'"))
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
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

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
        assert!(nested.ends_with("..., ...]},)"), "{nested}");
        let long = args(format!("[\"{}\"]", "é".repeat(5000)).as_bytes());
        assert!(long.ends_with("...',)") && long.chars().count() < CHARACTERS_MAX + 16, "{long}");
    }

    /// `tests/golden/make.py` made these with Celery's `saferepr`: what is shown, as `argsrepr`, as `kwargsrepr` or value.
    #[test]
    fn as_celery_shows_it() {
        let text = |json: &str| crate::json::text(json.as_bytes()).unwrap();
        for line in include_str!("../tests/golden/repr.tsv").lines() {
            let mut fields = line.split('\t');
            let source = STANDARD.decode(fields.next().unwrap()).unwrap();
            let (tuple, plain) = (fields.next().unwrap(), fields.next().unwrap());
            if !tuple.is_empty() {
                assert_eq!(args(&source), text(tuple));
            }
            assert_eq!(value(&source), text(plain));
        }
    }
}
