//! kombu's typed values: an object of exactly `__type__` and `__value__` stands for what JSON can't hold
//! (`kombu/utils/json.py`). Any other object is an ordinary one.
//!
//! They are checked here and read by whoever needs them: a datetime stays the text that it is.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem::Finder;

use super::scan::{Error, Kind, Scanner};
use super::write_string;

/// Finds the key that makes an object a typed value. Made once: that takes longer than a search in a usual body.
static MARK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"__type__\""));

/// Every type that kombu registers by itself, and what its value is.
const KNOWN: [(&str, Kind); 7] = [
    ("datetime", Kind::String),
    ("date", Kind::String),
    ("time", Kind::String),
    ("decimal", Kind::String),
    ("uuid", Kind::Object),
    ("bytes", Kind::String),
    ("base64", Kind::String),
];

/// How deep values may be nested: as deep as whatever reads them afterwards goes. A deeper one would cost the stack.
const DEPTH_MAX: usize = 200;

/// Checks every typed value in a text, at any depth: its type is one of kombu's or in `more`, its value of that type's kind.
/// A text without any costs one search.
///
/// # Errors
/// When a type is not known or its value of another kind, both of which are undecodable to Celery; or when values are nested
/// too deep.
pub(crate) fn check(text: &Bytes, more: &[String]) -> Result<(), Error> {
    if MARK.find(text).is_none() {
        return Ok(());
    }
    let mut scanner = Scanner::new(text)?;
    let kind = scanner.kind()?;
    walk(&mut scanner, kind, more, 0)?;
    scanner.finish()
}

fn walk(scanner: &mut Scanner<'_>, kind: Kind, more: &[String], depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new(format!("expected at most {DEPTH_MAX} levels of nesting"), scanner.offset()));
    }
    match kind {
        Kind::Array => {
            let mut next = scanner.first_element()?;
            while let Some(kind) = next {
                walk(scanner, kind, more, depth + 1)?;
                next = scanner.next_element()?;
            }
            Ok(())
        }
        Kind::Object => walk_object(scanner, more, depth + 1),
        _ => scanner.skip(),
    }
}

enum Key {
    Type,
    Value,
    Other,
}

impl Key {
    fn of(key: &str) -> Self {
        match key {
            "__type__" => Self::Type,
            "__value__" => Self::Value,
            _ => Self::Other,
        }
    }
}

fn walk_object(scanner: &mut Scanner<'_>, more: &[String], depth: usize) -> Result<(), Error> {
    let (mut name, mut value, mut others) = (None, None, false);
    let mut key = scanner.first_key(Key::of)?;
    let at = scanner.offset();
    while let Some(known) = key {
        let kind = scanner.kind()?;
        match known {
            Key::Type if kind == Kind::String => name = Some(scanner.text(|text| Some(text.to_owned()))?),
            Key::Type => {
                name = Some(None);
                walk(scanner, kind, more, depth)?;
            }
            Key::Value => {
                value = Some(kind);
                walk(scanner, kind, more, depth)?;
            }
            Key::Other => {
                others = true;
                walk(scanner, kind, more, depth)?;
            }
        }
        key = scanner.next_key(Key::of)?;
    }
    match (name, value) {
        (Some(name), Some(kind)) if !others => check_one(name.as_deref(), kind, more, at),
        _ => Ok(()),
    }
}

fn check_one(name: Option<&str>, kind: Kind, more: &[String], at: usize) -> Result<(), Error> {
    let error = |what: String| Err(Error::new(what, at));
    let Some(name) = name else {
        return error("expected `__type__` of a typed value to be a string".to_owned());
    };
    match KNOWN.into_iter().find(|(known, _)| *known == name) {
        Some((_, wanted)) if wanted == kind => Ok(()),
        Some((_, wanted)) => {
            error(format!("expected `__value__` of a `{name}` to be {wanted}, found {kind}"))
        }
        None if more.iter().any(|known| known == name) => Ok(()),
        None => {
            let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
            error(format!("expected a typed value of type {}, found `{name}`", known.join(", ")))
        }
    }
}

/// How much a typed value is longer than what is in it, at most.
pub(crate) const WRAPPER_BYTES: usize = 48;

/// Appends a typed value whose value is text.
pub(crate) fn write_typed(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b"{\"__type__\": \"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\", \"__value__\": ");
    write_string(out, value);
    out.push(b'}');
}

/// Appends bytes as kombu does: as text when they are UTF-8, else in base64.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => write_typed(out, "bytes", text),
        Err(_) => write_typed(out, "base64", &STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check(&Bytes::copy_from_slice(text.as_bytes()), &["my.point".to_owned()])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn kombus_types_pass_at_any_depth() {
        for text in [
            r#"[{"__type__": "datetime", "__value__": "2026-01-02T03:04:05.678901+00:00"}]"#,
            r#"{"a": [{"__value__": {"hex": "05"}, "__type__": "uuid"}]}"#,
            r#"{"__type__": "base64", "__value__": "/w=="}"#,
            r#"{"__type__": "my.point", "__value__": [1, 2]}"#,
            r#"{"__type__": "x", "__value__": 1, "more": true}"#,
            r#"{"__type__": "x"}"#,
            r#""\"__type__\"""#,
            "not looked at",
        ] {
            assert_eq!(checked(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_celery_can_not_read_is_refused() {
        for (text, part) in [
            (r#"[{"__type__": "x", "__value__": 1}]"#, "uuid, bytes, base64, found `x` at byte"),
            (r#"[[{"a": {"__type__": 1, "__value__": 1}}]]"#, "`__type__` of a typed value to be a string"),
            (
                r#"{"__type__": "uuid", "__value__": "05"}"#,
                "`__value__` of a `uuid` to be an object, found a string",
            ),
            (
                r#"{"__type__": "date", "__value__": null}"#,
                "`__value__` of a `date` to be a string, found null",
            ),
            (
                r#"{"__type__": "x", "__value__": {"__type__": "date", "__value__": "2026-01-01"}, "__type__": "y"}"#,
                "found `y`",
            ),
            (
                r#"{"m": {"__type__": "x", "__value__": {"__type__": "y", "__value__": 1}, "z": 1}}"#,
                "found `y`",
            ),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_whatever_is_missing() {
        for (open, mark) in [("[", "\"__type__\""), ("{\"a\":", "{\"__type__\": 1}")] {
            let deep = |levels: usize| checked(&format!("{}{mark}", open.repeat(levels)));
            let error = deep(1_000_000).unwrap_err();
            assert!(error.contains("at most 200 levels"), "{error}");
            assert!(!deep(100).unwrap_err().contains("levels"));
        }
    }

    #[test]
    fn bytes_are_written_as_kombu_writes_them() {
        for (bytes, text) in [
            (&b"abc"[..], r#"{"__type__": "bytes", "__value__": "abc"}"#),
            (b"\xff", r#"{"__type__": "base64", "__value__": "/w=="}"#),
            ("é".as_bytes(), r#"{"__type__": "bytes", "__value__": "\u00e9"}"#),
            (b"", r#"{"__type__": "bytes", "__value__": ""}"#),
        ] {
            let mut out = Vec::new();
            write_bytes(&mut out, bytes);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
