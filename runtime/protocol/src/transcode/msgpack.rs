//! MessagePack as Python's `msgpack` writes it for kombu: text apart from bytes, no extension types.

use bytes::Bytes;
use rmp::Marker;

use super::{TranscodeError, write_binary, write_double, write_key, write_number, write_text};
use crate::json::DEPTH_MAX;
use crate::output::Output;

/// JSON takes about so many times the room.
const USUAL_RATIO: usize = 2;

/// One value as JSON of at most `bytes_max` bytes.
///
/// A map's keys become text as Python's `json` makes them: `None` is `null`, `True` is `true`, a number its digits.
pub(crate) fn to_json(source: &[u8], bytes_max: usize) -> Result<Bytes, TranscodeError> {
    let output = Output::new(bytes_max, source.len().saturating_mul(USUAL_RATIO));
    let mut reader = Reader { source, place: 0, output };
    reader.value(0)?;
    if reader.place < source.len() {
        return Err(TranscodeError::Trailing(reader.place));
    }
    Ok(super::finish(reader.output))
}

struct Reader<'a> {
    source: &'a [u8],
    place: usize,
    output: Output,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<(), TranscodeError> {
        let at = self.place;
        if depth > DEPTH_MAX {
            return Err(TranscodeError::TooDeep(at));
        }
        let marker = self.marker()?;
        match marker {
            Marker::FixArray(length) => self.array(u32::from(length), depth),
            Marker::Array16 => {
                let length = u32::from(u16::from_be_bytes(self.number()?));
                self.array(length, depth)
            }
            Marker::Array32 => {
                let length = u32::from_be_bytes(self.number()?);
                self.array(length, depth)
            }
            Marker::FixMap(length) => self.map(u32::from(length), depth),
            Marker::Map16 => {
                let length = u32::from(u16::from_be_bytes(self.number()?));
                self.map(length, depth)
            }
            Marker::Map32 => {
                let length = u32::from_be_bytes(self.number()?);
                self.map(length, depth)
            }
            scalar => self.scalar(scalar, at),
        }
    }

    fn array(&mut self, length: u32, depth: usize) -> Result<(), TranscodeError> {
        self.output.push(b"[")?;
        for place in 0..length {
            if place > 0 {
                self.output.push(b", ")?;
            }
            self.value(depth + 1)?;
        }
        Ok(self.output.push(b"]")?)
    }

    fn map(&mut self, length: u32, depth: usize) -> Result<(), TranscodeError> {
        self.output.push(b"{")?;
        for place in 0..length {
            if place > 0 {
                self.output.push(b", ")?;
            }
            self.key()?;
            self.output.push(b": ")?;
            self.value(depth + 1)?;
        }
        Ok(self.output.push(b"}")?)
    }

    fn key(&mut self) -> Result<(), TranscodeError> {
        let at = self.place;
        let marker = self.marker()?;
        if let Some(bytes) = self.binary(marker)? {
            return match std::str::from_utf8(bytes) {
                Ok(text) => Ok(write_text(&mut self.output, text)?),
                Err(_) => Err(wrong("a key that is text", "bytes", at)),
            };
        }
        let start = self.output.len();
        self.scalar(marker, at)?;
        let scalar = self.output.tail(start).to_vec();
        self.output.truncate(start);
        Ok(write_key(&mut self.output, &scalar)?)
    }

    fn scalar(&mut self, marker: Marker, at: usize) -> Result<(), TranscodeError> {
        if let Some(bytes) = self.binary(marker)? {
            return Ok(write_binary(&mut self.output, bytes)?);
        }
        if let Some(bytes) = self.text(marker)? {
            let text = std::str::from_utf8(bytes).map_err(|_| wrong("text in UTF-8", "other bytes", at))?;
            return Ok(write_text(&mut self.output, text)?);
        }
        match marker {
            Marker::Null => self.output.push(b"null")?,
            Marker::True => self.output.push(b"true")?,
            Marker::False => self.output.push(b"false")?,
            Marker::F32 => {
                let number = f32::from_be_bytes(self.number()?);
                write_double(&mut self.output, f64::from(number))?;
            }
            Marker::F64 => {
                let number = f64::from_be_bytes(self.number()?);
                write_double(&mut self.output, number)?;
            }
            marker => {
                let number = self.integer(marker, at)?;
                write_number(&mut self.output, number)?;
            }
        }
        Ok(())
    }

    fn integer(&mut self, marker: Marker, at: usize) -> Result<i128, TranscodeError> {
        Ok(match marker {
            Marker::FixPos(number) => i128::from(number),
            Marker::FixNeg(number) => i128::from(number),
            Marker::U8 => i128::from(u8::from_be_bytes(self.number()?)),
            Marker::U16 => i128::from(u16::from_be_bytes(self.number()?)),
            Marker::U32 => i128::from(u32::from_be_bytes(self.number()?)),
            Marker::U64 => i128::from(u64::from_be_bytes(self.number()?)),
            Marker::I8 => i128::from(i8::from_be_bytes(self.number()?)),
            Marker::I16 => i128::from(i16::from_be_bytes(self.number()?)),
            Marker::I32 => i128::from(i32::from_be_bytes(self.number()?)),
            Marker::I64 => i128::from(i64::from_be_bytes(self.number()?)),
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                return Err(wrong("a key that is text, a number or a word", "an array", at));
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                return Err(wrong("a key that is text, a number or a word", "a map", at));
            }
            Marker::Reserved => return Err(wrong("a value", "the byte 0xc1", at)),
            _ => return Err(wrong("a value without extension types", "an extension type", at)),
        })
    }

    fn text(&mut self, marker: Marker) -> Result<Option<&'a [u8]>, TranscodeError> {
        let length = match marker {
            Marker::FixStr(length) => u32::from(length),
            Marker::Str8 => u32::from(u8::from_be_bytes(self.number()?)),
            Marker::Str16 => u32::from(u16::from_be_bytes(self.number()?)),
            Marker::Str32 => u32::from_be_bytes(self.number()?),
            _ => return Ok(None),
        };
        self.take(length as usize).map(Some)
    }

    fn binary(&mut self, marker: Marker) -> Result<Option<&'a [u8]>, TranscodeError> {
        let length = match marker {
            Marker::Bin8 => u32::from(u8::from_be_bytes(self.number()?)),
            Marker::Bin16 => u32::from(u16::from_be_bytes(self.number()?)),
            Marker::Bin32 => u32::from_be_bytes(self.number()?),
            _ => return Ok(None),
        };
        self.take(length as usize).map(Some)
    }

    fn marker(&mut self) -> Result<Marker, TranscodeError> {
        let [byte] = self.number()?;
        Ok(Marker::from_u8(byte))
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], TranscodeError> {
        self.take(N)?.try_into().map_err(|_| TranscodeError::Truncated)
    }

    /// The next bytes: slices of the source, whatever length it claims.
    fn take(&mut self, length: usize) -> Result<&'a [u8], TranscodeError> {
        let end = self.place.checked_add(length).ok_or(TranscodeError::Truncated)?;
        let taken = self.source.get(self.place..end).ok_or(TranscodeError::Truncated)?;
        self.place = end;
        Ok(taken)
    }
}

fn wrong(expected: &'static str, found: &str, offset: usize) -> TranscodeError {
    TranscodeError::Value { expected, found: found.to_owned(), offset }
}
