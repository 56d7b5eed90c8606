//! Bytes inside JSON, as kombu writes them, and what they are.
//!
//! `{"__type__": "base64", "__value__": "…"}` for any bytes, `{"__type__": "bytes", "__value__": "…"}` for bytes that are
//! text (`kombu/utils/json.py`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rwork_protocol::json::{Value, object_of, string};

use crate::config::show_bytes;

/// Bytes that a value holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Blob {
    /// The bytes of a typed value; `None` for every other value.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let content = value.get("__value__")?.as_str()?;
        match value.get("__type__")?.as_str()? {
            "base64" => STANDARD.decode(content).ok().map(Self),
            "bytes" => Some(Self(content.as_bytes().to_vec())),
            _ => None,
        }
    }

    /// The typed value of these bytes.
    pub(crate) fn to_json(&self) -> Bytes {
        object_of(&[("__type__", string("base64")), ("__value__", string(&STANDARD.encode(&self.0)))])
    }

    /// What kind of file it is, by its first bytes.
    fn kind(&self) -> &'static str {
        const MAGIC: &[(&[u8], &str)] = &[
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"\xff\xd8\xff", "image/jpeg"),
            (b"GIF8", "image/gif"),
            (b"%PDF-", "application/pdf"),
            (b"\x1f\x8b", "application/gzip"),
            (b"PK\x03\x04", "application/zip"),
            (b"\0asm", "application/wasm"),
        ];
        let known = MAGIC.iter().find(|(magic, _)| self.0.starts_with(magic)).map(|(_, kind)| *kind);
        known.unwrap_or_else(|| if std::str::from_utf8(&self.0).is_ok() { "text" } else { "binary data" })
    }

    /// Width and height of a picture, in pixels.
    fn dimensions(&self) -> Option<(u32, u32)> {
        match self.kind() {
            "image/png" => Some((self.number(16, 4)?, self.number(20, 4)?)),
            "image/jpeg" => self.jpeg_dimensions(),
            _ => None,
        }
    }

    /// Steps over a JPEG's segments to its frame header, which holds height and width.
    fn jpeg_dimensions(&self) -> Option<(u32, u32)> {
        let mut at = 2;
        loop {
            let marker = self.number(at, 2)?;
            let is_frame = matches!(marker, 0xffc0..=0xffcf) && !matches!(marker, 0xffc4 | 0xffc8 | 0xffcc);
            if is_frame {
                return Some((self.number(at + 7, 2)?, self.number(at + 5, 2)?));
            }
            let length = usize::try_from(self.number(at + 2, 2)?).ok()?;
            at += 2 + length.max(2);
        }
    }

    /// A big-endian number of so many bytes.
    fn number(&self, at: usize, length: usize) -> Option<u32> {
        let bytes = self.0.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", show_bytes(self.0.len() as u64), self.kind())?;
        match self.dimensions() {
            Some((width, height)) => write!(f, ", {width} × {height}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_values_are_read_and_written() {
        let blob = Blob(vec![0, 255]);
        assert_eq!(blob.to_json(), r#"{"__type__": "base64", "__value__": "AP8="}"#);
        assert_eq!(Blob::of(&Value::parse(&blob.to_json()).unwrap()), Some(blob));
        let text = Value::parse(br#"{"__type__": "bytes", "__value__": "hi"}"#).unwrap();
        assert_eq!(Blob::of(&text), Some(Blob(b"hi".to_vec())));
    }

    #[test]
    fn other_values_are_not_bytes() {
        for text in [
            "1",
            "{}",
            r#"{"__type__": "base64", "__value__": "?"}"#,
            r#"{"__type__": "base64", "__value__": 1}"#,
            r#"{"__type__": "decimal", "__value__": "1"}"#,
        ] {
            assert_eq!(Blob::of(&Value::parse(text.as_bytes()).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn pictures_show_their_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 1, 0, 0, 0, 0, 64]);
        assert_eq!(Blob(png).to_string(), "24 bytes of image/png, 256 × 64");
        let jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08\x00\x40\x01\x00".to_vec();
        assert_eq!(Blob(jpeg).to_string(), "17 bytes of image/jpeg, 256 × 64");
        // Cut short or nonsense: no size, and no panic.
        assert_eq!(Blob(b"\x89PNG\r\n\x1a\n".to_vec()).to_string(), "8 bytes of image/png");
        assert_eq!(Blob(b"\xff\xd8\xff\xe0\xff\xff".to_vec()).to_string(), "6 bytes of image/jpeg");
        assert_eq!(Blob(vec![0xff, 0, 1]).to_string(), "3 bytes of binary data");
    }
}
