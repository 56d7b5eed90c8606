//! The compressions of bodies and of stored results (`kombu/compression.py`, Celery's `result_compression`).
//!
//! Read as streams into an output with a limit: no size that a stream claims is believed, and no window larger than
//! [`WINDOW_BYTES_MAX`] is opened. Exactly one whole stream is taken; what is cut or followed by anything is an error.

mod read;
mod write;

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::Message;
use crate::output::Overflow;

/// Largest window of history that a stream may ask for, in bytes: what brotli always may, and twice what Python's `lzma`
/// and `zstd` ask for unless told otherwise.
pub const WINDOW_BYTES_MAX: usize = 1 << WINDOW_BITS_MAX;

const WINDOW_BITS_MAX: u32 = 24;

/// What a stored result begins with when it is compressed; the content type, a zero byte and the stream follow.
const STORED: &[u8] = b"\0celery-compressed\0";

/// Finds the header of a compressed body. Made once: that takes longer than a search in usual headers.
static HEADER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"compression\""));

/// Whether decoding a message may take long: it is compressed, or somewhere it says so.
pub fn may_be_compressed(message: &Message) -> bool {
    HEADER.find(&message.headers).is_some()
}

/// A compression by what it really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zlib's format, which Celery calls gzip; real gzip is read too.
    Zlib,
    /// bzip2.
    Bzip2,
    /// The `.xz` container.
    Xz,
    /// brotli.
    Brotli,
    /// Zstandard.
    Zstd,
}

/// Bytes that can't be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// Nothing that is known goes by this name.
    #[error(
        "expected a compression out of `gzip`, `bzip2`, `lzma`, `brotli`, `zstd` or their MIME types, found `{0}`"
    )]
    Unknown(String),
    /// The stream ends too early.
    #[error("expected a whole {0} stream, found its beginning")]
    Truncated(&'static str),
    /// Something follows the stream.
    #[error("expected nothing after the {format} stream, found {extra} bytes")]
    Trailing {
        /// The compression.
        format: &'static str,
        /// How much follows, in bytes.
        extra: usize,
    },
    /// Not such a stream, or one that wants too large a window.
    #[error("expected a {format} stream: {why}")]
    Invalid {
        /// The compression.
        format: &'static str,
        /// What its decoder says.
        why: String,
    },
    /// It expands beyond the limit.
    #[error("{0}")]
    TooLarge(Overflow),
}

impl From<Overflow> for CompressionError {
    fn from(overflow: Overflow) -> Self {
        Self::TooLarge(overflow)
    }
}

impl Compression {
    /// By its MIME type or by one of kombu's aliases, whatever the case.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "application/x-gzip" | "gzip" | "zlib" => Self::Zlib,
            "application/x-bz2" | "bzip2" | "bzip" => Self::Bzip2,
            "application/x-lzma" | "lzma" | "xz" => Self::Xz,
            "application/x-brotli" | "brotli" => Self::Brotli,
            "application/zstd" | "zstd" | "zstandard" => Self::Zstd,
            _ => return None,
        })
    }

    /// The MIME type on the wire.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zlib => "application/x-gzip",
            Self::Bzip2 => "application/x-bz2",
            Self::Xz => "application/x-lzma",
            Self::Brotli => "application/x-brotli",
            Self::Zstd => "application/zstd",
        }
    }

    fn format(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        }
    }

    fn invalid(self, why: impl ToString) -> CompressionError {
        CompressionError::Invalid { format: self.format(), why: why.to_string() }
    }
}

/// What was compressed; at most `bytes_max` bytes.
///
/// # Errors
/// When it is not exactly one stream of this kind, or expands beyond the limit.
pub fn decompress(
    compressed: &[u8],
    compression: Compression,
    bytes_max: usize,
) -> Result<Bytes, CompressionError> {
    read::decompress(compressed, compression, bytes_max)
}

/// One stream, compressed as hard as Python does by default but for brotli, whose default is made for files that are
/// compressed once.
///
/// # Errors
/// When the library refuses, which only want of memory makes it do.
pub fn compress(plain: &[u8], compression: Compression) -> Result<Vec<u8>, CompressionError> {
    write::compress(plain, compression).map_err(|why| compression.invalid(why))
}

/// A stored result made smaller, its compression named before it: `\0celery-compressed\0application/x-gzip\0…`.
///
/// # Errors
/// As [`compress`].
pub fn compress_stored(plain: &[u8], compression: Compression) -> Result<Bytes, CompressionError> {
    let mut out = Vec::with_capacity(STORED.len() + 32 + plain.len() / 2);
    out.extend_from_slice(STORED);
    out.extend_from_slice(compression.media_type().as_bytes());
    out.push(0);
    out.append(&mut compress(plain, compression)?);
    Ok(out.into())
}

/// Whether a stored result says that it is compressed.
pub fn is_compressed(stored: &[u8]) -> bool {
    stored.starts_with(STORED)
}

/// A stored result as it was before it was compressed, whether this reader would compress or not; the very bytes when it
/// says nothing of a compression. At most `bytes_max` bytes come out of one that does.
///
/// # Errors
/// When the compression is not known or does not hold what it should.
pub fn decompress_stored(stored: &Bytes, bytes_max: usize) -> Result<Bytes, CompressionError> {
    let Some(rest) = stored.strip_prefix(STORED) else { return Ok(stored.clone()) };
    let unknown = |name: &[u8]| CompressionError::Unknown(shown(name));
    let end = memchr::memchr(0, rest).ok_or_else(|| unknown(rest))?;
    let (name, compressed) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
    let known = std::str::from_utf8(name).ok().and_then(Compression::of);
    decompress(compressed, known.ok_or_else(|| unknown(name))?, bytes_max)
}

/// The beginning of a name that nobody knows, for an error.
fn shown(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    String::from_utf8_lossy(name.get(..SHOWN_MAX).unwrap_or(name)).into_owned()
}

#[cfg(test)]
mod tests;
