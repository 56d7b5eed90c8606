//! Making streams, for results that are stored compressed.

use std::io::{self, Write as _};

use super::Compression;

/// Python's `zlib.compress`.
const ZLIB_LEVEL: u32 = 6;
/// Python's `bz2.compress`.
const BZIP2_LEVEL: u32 = 9;
/// Python's `lzma.compress`.
const XZ_PRESET: u32 = 6;
/// Python's `zstd.compress`.
const ZSTD_LEVEL: i32 = 3;
/// Python's default of 11 takes a second per megabyte; this one is within a tenth of its size.
const BROTLI_QUALITY: i32 = 6;

pub(super) fn compress(plain: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Zlib => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(ZLIB_LEVEL));
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(BZIP2_LEVEL));
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), XZ_PRESET);
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Compression::Brotli => {
            let mut compressed = Vec::new();
            let parameters =
                brotli::enc::BrotliEncoderParams { quality: BROTLI_QUALITY, ..Default::default() };
            brotli::BrotliCompress(&mut &*plain, &mut compressed, &parameters)?;
            Ok(compressed)
        }
        Compression::Zstd => zstd::stream::encode_all(plain, ZSTD_LEVEL),
    }
}
