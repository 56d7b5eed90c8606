//! Other formats made into JSON, so that everything behind the decoder reads one format.
//!
//! Each reader goes through its source once, straight into an [`Output`] with a limit. What JSON can't hold becomes one of
//! kombu's typed values, as a Python producer would have written it in JSON.

pub(crate) mod msgpack;
pub(crate) mod yaml;

use bytes::Bytes;

use crate::json::{self, DEPTH_MAX, write_float, write_string};
use crate::output::{Output, Overflow};

/// What is wrong with a body in another format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// It ends in the middle of a value.
    #[error("expected a whole value, found its beginning")]
    Truncated,
    /// Something follows the value.
    #[error("expected nothing after the value at byte {0}")]
    Trailing(usize),
    /// Arrays and objects within each other.
    #[error("expected at most {DEPTH_MAX} levels of nesting at byte {0}")]
    TooDeep(usize),
    /// A part that has no meaning, or none that JSON could carry.
    #[error("expected {expected}, found {found} at byte {offset}")]
    Value {
        /// What would do.
        expected: &'static str,
        /// What it is.
        found: String,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// Not even of that format.
    #[error("{0}")]
    Syntax(String),
    /// As JSON it is beyond the limit.
    #[error("{0}")]
    TooLarge(Overflow),
}

impl From<Overflow> for TranscodeError {
    fn from(overflow: Overflow) -> Self {
        Self::TooLarge(overflow)
    }
}

/// A text's longest form in JSON: each character that is not printable ASCII becomes `\uXXXX`, a wide one two of them.
fn string_bytes_max(text: &str) -> usize {
    text.len().saturating_mul(6).saturating_add(2)
}

fn write_text(output: &mut Output, text: &str) -> Result<(), Overflow> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        output.push(b"\"")?;
        output.push(text.as_bytes())?;
        return output.push(b"\"");
    }
    // In pieces: else a long text would have to be thought six times as long.
    const PIECE: usize = 4 << 10;
    output.push(b"\"")?;
    let mut rest = text;
    while !rest.is_empty() {
        let end = (PIECE.min(rest.len())..=rest.len())
            .find(|end| rest.is_char_boundary(*end))
            .unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        let mut quoted = Vec::with_capacity(string_bytes_max(piece));
        write_string(&mut quoted, piece);
        output.push(quoted.get(1..quoted.len() - 1).unwrap_or_default())?;
        rest = after;
    }
    output.push(b"\"")
}

fn write_number(output: &mut Output, number: impl std::fmt::Display) -> Result<(), Overflow> {
    output.push(number.to_string().as_bytes())
}

fn write_double(output: &mut Output, number: f64) -> Result<(), Overflow> {
    let mut text = Vec::with_capacity(32);
    write_float(&mut text, number);
    output.push(&text)
}

fn write_binary(output: &mut Output, bytes: &[u8]) -> Result<(), Overflow> {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            output.push(b"{\"__type__\": \"bytes\", \"__value__\": ")?;
            write_text(output, text)?;
            output.push(b"}")
        }
        Err(_) => {
            output.write(bytes.len().saturating_mul(2).saturating_add(json::WRAPPER_BYTES + 4), |out| {
                json::write_bytes(out, bytes);
            })
        }
    }
}

/// A scalar in JSON as the key of an object: Python's `json` writes numbers and words as text.
fn write_key(output: &mut Output, scalar: &[u8]) -> Result<(), Overflow> {
    if scalar.starts_with(b"\"") {
        return output.push(scalar);
    }
    output.push(b"\"")?;
    output.push(scalar)?;
    output.push(b"\"")
}

fn finish(output: Output) -> Bytes {
    output.into_bytes()
}

#[cfg(test)]
mod tests;
