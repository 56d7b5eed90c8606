//! Finds where JSON values begin and end, without decoding them.

use std::borrow::Cow;

use super::{DEPTH_MAX, JsonError};

/// The elements of an array, each as the text it is written in.
pub(crate) fn elements(text: &str) -> Result<Vec<&str>, JsonError> {
    let mut scanner = Scanner::new(text);
    let mut found = Vec::new();
    scanner.expect(b'[')?;
    if !scanner.take(b']') {
        loop {
            found.push(scanner.value()?);
            if scanner.take(b']') {
                break;
            }
            scanner.expect(b',')?;
        }
    }
    scanner.end()?;
    Ok(found)
}

/// The members of an object, each value as the text it is written in; repeated names are all there.
pub(crate) fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, JsonError> {
    let mut scanner = Scanner::new(text);
    let mut found = Vec::new();
    scanner.expect(b'{')?;
    if !scanner.take(b'}') {
        loop {
            scanner.blank();
            let name = scanner.string()?;
            scanner.expect(b':')?;
            found.push((name, scanner.value()?));
            if scanner.take(b'}') {
                break;
            }
            scanner.expect(b',')?;
        }
    }
    scanner.end()?;
    Ok(found)
}

/// A place in a text.
#[derive(Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not blank, not taken.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.blank();
        self.byte()
    }

    /// Takes `wanted` if it is the next byte that is not blank.
    pub(super) fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.error(&format!("expected `{}`", char::from(wanted))))
        }
    }

    /// Takes `word` if it comes next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Nothing but blanks may be left.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("more after the end of the value")),
        }
    }

    pub(super) fn error(&self, text: &str) -> JsonError {
        JsonError::at(text, self.at)
    }

    /// The text of the number that starts here; sign and digits are checked by whoever parses it.
    pub(super) fn number(&mut self) -> &'a str {
        let rest = self.rest();
        let end =
            rest.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let (number, _) = rest.split_at(end.unwrap_or(rest.len()));
        self.at += number.len();
        number
    }

    /// The string that starts here, decoded; borrowed when nothing in it is escaped.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let (raw, escaped) = self.raw_string()?;
        if escaped { self.unescape(raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// The text of the value that starts here.
    pub(super) fn value(&mut self) -> Result<&'a str, JsonError> {
        self.blank();
        let from = self.at;
        let mut depth = 0_u32;
        loop {
            match self.peek() {
                Some(b'[' | b'{') => {
                    self.at += 1;
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(self.error("nested too deeply"));
                    }
                }
                // Brackets are only counted here; that they match is seen when the value is decoded.
                Some(b']' | b'}') if depth > 0 => {
                    self.at += 1;
                    depth -= 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                Some(b'"') => _ = self.raw_string()?,
                Some(b'0'..=b'9' | b'-') if !self.word("-Infinity") => _ = self.number(),
                Some(b'-') => {}
                Some(_) if self.constant() => {}
                Some(_) => return Err(self.error("expected a value")),
                None => return Err(self.error("the value is cut off")),
            }
            if depth == 0 {
                return Ok(self.text.get(from..self.at).unwrap_or_default());
            }
        }
    }

    fn constant(&mut self) -> bool {
        ["true", "false", "null", "NaN", "Infinity"].into_iter().any(|word| self.word(word))
    }

    fn blank(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// What is between the quotes, and whether something in it is escaped.
    fn raw_string(&mut self) -> Result<(&'a str, bool), JsonError> {
        if self.byte() != Some(b'"') {
            return Err(self.error("expected a string"));
        }
        self.at += 1;
        let from = self.at;
        let mut escaped = false;
        loop {
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) => return Err(self.error("control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the string is cut off")),
            }
        }
        let raw = self.text.get(from..self.at).ok_or_else(|| self.error("the string is cut off"))?;
        self.at += 1;
        Ok((raw, escaped))
    }

    fn unescape(&self, raw: &str) -> Result<String, JsonError> {
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((plain, escape)) = rest.split_once('\\') {
            out.push_str(plain);
            let mut characters = escape.chars();
            let decoded = match characters.next() {
                Some(same @ ('"' | '\\' | '/')) => same,
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let (decoded, left) = unicode(characters.as_str()).ok_or_else(|| {
                        self.error("a `\\u` escape that is no character, in the string that ends")
                    })?;
                    characters = left.chars();
                    decoded
                }
                _ => return Err(self.error("unknown escape in the string that ends")),
            };
            out.push(decoded);
            rest = characters.as_str();
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// The character of a `\u` escape, whose digits come first in `text`, and what follows it. A lone surrogate, which Python
/// writes, is no character: Rust's strings cannot hold it.
fn unicode(text: &str) -> Option<(char, &str)> {
    let (first, rest) = hex(text)?;
    if let Some(decoded) = char::from_u32(first) {
        return Some((decoded, rest));
    }
    let (second, rest) = hex(rest.strip_prefix("\\u")?)?;
    let both = char::decode_utf16([u16::try_from(first).ok()?, u16::try_from(second).ok()?]).next()?.ok()?;
    Some((both, rest))
}

fn hex(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if all { Some((u32::from_str_radix(digits, 16).ok()?, rest)) } else { None }
}
