//! Finding values by their bytes, without parsing or copying them.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use jiter::{Jiter, JiterError, JsonError, NumberAny, Peek};

/// Deepest nesting of arrays and objects within one value. It is the parser's own bound; Python's is about 1000, but what
/// nests deeper than this is an attack or a mistake.
pub const DEPTH_MAX: usize = 200;

/// Up to so many entries a search is quicker than a table.
const SEARCH_MAX: usize = 16;

/// Text that is not the JSON that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct Error {
    what: String,
    offset: usize,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>, offset: usize) -> Self {
        Self { what: what.into(), offset }
    }

    /// Where in the text, in bytes from its start.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl From<JiterError> for Error {
    fn from(error: JiterError) -> Self {
        Self::new(error.error_type.to_string(), error.index)
    }
}

impl From<JsonError> for Error {
    fn from(error: JsonError) -> Self {
        Self::new(error.error_type.to_string(), error.index)
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool,
    /// Any number, `NaN` and the infinities too.
    Number,
    /// `"…"`
    String,
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

impl Kind {
    /// By the first byte that is not white space; the rest is not looked at. `None` when no value begins so.
    pub fn of(value: &[u8]) -> Option<Self> {
        Some(match value.trim_ascii_start().first()? {
            b'n' => Self::Null,
            b't' | b'f' => Self::Bool,
            b'"' => Self::String,
            b'[' => Self::Array,
            b'{' => Self::Object,
            b'-' | b'0'..=b'9' | b'N' | b'I' => Self::Number,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// Checks that `text` is exactly one JSON value in UTF-8, and says of which kind.
///
/// # Errors
/// When it is not: what was expected, and where.
pub fn check(text: &[u8]) -> Result<Kind, Error> {
    check_utf8(text)?;
    let mut jiter = Jiter::new(text).with_allow_inf_nan();
    jiter.next_skip()?;
    jiter.finish()?;
    Kind::of(text).ok_or_else(|| Error::new("expected a value", 0))
}

/// Whether the value is `null`; white space around it is allowed.
pub fn is_null(value: &[u8]) -> bool {
    value.trim_ascii() == b"null"
}

/// Whether a value known to be an array or an object has nothing in it.
pub fn is_empty(container: &[u8]) -> bool {
    let inner = container.trim_ascii();
    inner.get(1..inner.len().saturating_sub(1)).unwrap_or_default().trim_ascii().is_empty()
}

/// The elements of an array, each as its own bytes.
///
/// # Errors
/// When `array` is not exactly one JSON array.
pub fn elements(array: &Bytes) -> Result<Vec<Bytes>, Error> {
    let mut scanner = Scanner::new(array)?;
    let mut found = Vec::new();
    let mut next = scanner.first_element()?;
    while next.is_some() {
        found.push(scanner.raw()?);
        next = scanner.next_element()?;
    }
    scanner.finish()?;
    Ok(found)
}

/// The entries of an object in order, each value as its own bytes; of a repeated key only the last.
///
/// # Errors
/// When `object` is not exactly one JSON object.
pub fn entries(object: &Bytes) -> Result<Vec<(String, Bytes)>, Error> {
    let mut scanner = Scanner::new(object)?;
    let mut found = Vec::new();
    let mut key = scanner.first_key(str::to_owned)?;
    while let Some(name) = key {
        found.push((name, scanner.raw()?));
        key = scanner.next_key(str::to_owned)?;
    }
    scanner.finish()?;
    keep_last(&mut found);
    Ok(found)
}

/// The text of a JSON string.
///
/// # Errors
/// When `value` is not exactly one JSON string.
pub fn text(value: &[u8]) -> Result<String, Error> {
    check_utf8(value)?;
    let mut jiter = Jiter::new(value).with_allow_inf_nan();
    let text = jiter.next_str()?.to_owned();
    jiter.finish()?;
    Ok(text)
}

/// Of entries with the same key, keeps the last, at its own place.
pub(crate) fn keep_last<T>(entries: &mut Vec<(String, T)>) {
    if entries.len() <= SEARCH_MAX {
        let mut place = 0;
        while let Some((key, _)) = entries.get(place) {
            if entries.iter().skip(place + 1).any(|(later, _)| later == key) {
                entries.remove(place);
            } else {
                place += 1;
            }
        }
        return;
    }
    let last: HashMap<String, usize> =
        entries.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
    let mut place = 0;
    entries.retain(|(key, _)| {
        place += 1;
        last.get(key) == Some(&(place - 1))
    });
}

/// The skipping parser leaves strings unchecked, so that the whole text is checked here, once.
fn check_utf8(text: &[u8]) -> Result<(), Error> {
    std::str::from_utf8(text).map(drop).map_err(|error| Error::new("expected UTF-8", error.valid_up_to()))
}

/// One pass over a text, handing out the bytes of values as slices of it.
pub(crate) struct Scanner<'a> {
    source: &'a Bytes,
    jiter: Jiter<'a>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(source: &'a Bytes) -> Result<Self, Error> {
        check_utf8(source)?;
        Ok(Self { source, jiter: Jiter::new(source).with_allow_inf_nan() })
    }

    pub(crate) fn kind(&mut self) -> Result<Kind, Error> {
        let peek = self.jiter.peek()?;
        kind_of(peek).ok_or_else(|| Error::new("expected a value", self.jiter.current_index()))
    }

    /// Steps over one value and returns its bytes.
    pub(crate) fn raw(&mut self) -> Result<Bytes, Error> {
        let peek = self.jiter.peek()?;
        let start = self.jiter.current_index();
        self.jiter.known_skip(peek)?;
        Ok(self.source.slice(start..self.jiter.current_index()))
    }

    pub(crate) fn skip(&mut self) -> Result<(), Error> {
        Ok(self.jiter.next_skip()?)
    }

    pub(crate) fn text<T>(&mut self, take: impl FnOnce(&str) -> T) -> Result<T, Error> {
        Ok(take(self.jiter.next_str()?))
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Error> {
        Ok(self.jiter.next_bool()?)
    }

    pub(crate) fn number(&mut self) -> Result<NumberAny, Error> {
        Ok(self.jiter.next_number()?)
    }

    pub(crate) fn first_element(&mut self) -> Result<Option<Kind>, Error> {
        let first = self.jiter.next_array()?;
        self.element(first)
    }

    pub(crate) fn next_element(&mut self) -> Result<Option<Kind>, Error> {
        let next = self.jiter.array_step()?;
        self.element(next)
    }

    fn element(&self, peek: Option<Peek>) -> Result<Option<Kind>, Error> {
        let Some(peek) = peek else { return Ok(None) };
        match kind_of(peek) {
            Some(kind) => Ok(Some(kind)),
            None => Err(Error::new("expected a value", self.jiter.current_index())),
        }
    }

    pub(crate) fn first_key<T>(&mut self, take: impl FnOnce(&str) -> T) -> Result<Option<T>, Error> {
        Ok(self.jiter.next_object()?.map(take))
    }

    pub(crate) fn next_key<T>(&mut self, take: impl FnOnce(&str) -> T) -> Result<Option<T>, Error> {
        Ok(self.jiter.next_key()?.map(take))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        Ok(self.jiter.finish()?)
    }

    pub(crate) fn offset(&self) -> usize {
        self.jiter.current_index()
    }
}

fn kind_of(peek: Peek) -> Option<Kind> {
    Kind::of(&[peek.into_inner()])
}
