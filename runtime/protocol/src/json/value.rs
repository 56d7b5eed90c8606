//! A value taken apart, for those who need to look inside.

use std::fmt;

use bytes::Bytes;
use jiter::{NumberAny, NumberInt};

use super::scan::{DEPTH_MAX, Error, Kind, Scanner, keep_last};
use super::write::{write_float, write_string};

/// One JSON value. Integers keep every digit; objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A larger integer, by its decimal digits.
    BigInt(String),
    /// Any other number, `NaN` and the infinities too.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// Entries in order, each key once.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Reads exactly one value.
    ///
    /// # Errors
    /// When `text` is not one, or nests deeper than [`DEPTH_MAX`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let source = Bytes::copy_from_slice(text);
        let mut scanner = Scanner::new(&source)?;
        let value = read(&mut scanner, 0)?;
        scanner.finish()?;
        Ok(value)
    }

    /// The value encoded as Celery does.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    /// Appends the value encoded as Celery does.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::BigInt(digits) => out.extend_from_slice(digits.as_bytes()),
            Self::Float(number) => write_float(out, *number),
            Self::String(text) => write_string(out, text),
            Self::Array(elements) => {
                out.push(b'[');
                for (place, element) in elements.iter().enumerate() {
                    separate(out, place);
                    element.write(out);
                }
                out.push(b']');
            }
            Self::Object(entries) => {
                out.push(b'{');
                for (place, (key, value)) in entries.iter().enumerate() {
                    separate(out, place);
                    write_string(out, key);
                    out.extend_from_slice(b": ");
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// The entry of an object; `None` for other values too.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Everything written is ASCII.
        f.write_str(std::str::from_utf8(&self.to_bytes()).unwrap_or_default())
    }
}

fn separate(out: &mut Vec<u8>, place: usize) {
    if place > 0 {
        out.extend_from_slice(b", ");
    }
}

fn read(scanner: &mut Scanner<'_>, depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new(format!("expected at most {DEPTH_MAX} levels of nesting"), scanner.offset()));
    }
    Ok(match scanner.kind()? {
        Kind::Null => {
            scanner.skip()?;
            Value::Null
        }
        Kind::Bool => Value::Bool(scanner.boolean()?),
        Kind::Number => match scanner.number()? {
            NumberAny::Int(NumberInt::Int(number)) => Value::Int(number),
            NumberAny::Int(NumberInt::BigInt(number)) => Value::BigInt(number.to_string()),
            NumberAny::Float(number) => Value::Float(number),
        },
        Kind::String => Value::String(scanner.text(str::to_owned)?),
        Kind::Array => read_array(scanner, depth)?,
        Kind::Object => read_object(scanner, depth)?,
    })
}

fn read_array(scanner: &mut Scanner<'_>, depth: usize) -> Result<Value, Error> {
    let mut elements = Vec::new();
    let mut next = scanner.first_element()?;
    while next.is_some() {
        elements.push(read(scanner, depth + 1)?);
        next = scanner.next_element()?;
    }
    Ok(Value::Array(elements))
}

fn read_object(scanner: &mut Scanner<'_>, depth: usize) -> Result<Value, Error> {
    let mut entries = Vec::new();
    let mut key = scanner.first_key(str::to_owned)?;
    while let Some(name) = key {
        entries.push((name, read(scanner, depth + 1)?));
        key = scanner.next_key(str::to_owned)?;
    }
    keep_last(&mut entries);
    Ok(Value::Object(entries))
}
