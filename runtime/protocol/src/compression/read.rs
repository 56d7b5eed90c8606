//! Reading streams, each codec step by step into the same small buffer.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::Bytes;
use liblzma::stream::{Action, Stream};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::{Compression, CompressionError, WINDOW_BITS_MAX, WINDOW_BYTES_MAX};
use crate::output::Output;

/// How much is decompressed in one step, in bytes.
const CHUNK: usize = 32 << 10;

/// Most bodies shrink by about this much.
const USUAL_RATIO: usize = 3;

/// What xz may take besides its window, in bytes; its decoder needs about 100 KiB.
const XZ_EXTRA_BYTES: usize = 1 << 20;

/// How one step went.
struct Step {
    read: usize,
    written: usize,
    ended: bool,
}

/// Steps until the stream's end.
pub(super) fn decompress(
    compressed: &[u8],
    compression: Compression,
    bytes_max: usize,
) -> Result<Bytes, CompressionError> {
    let invalid = |why: String| compression.invalid(why);
    let mut codec = Codec::new(compression, compressed).map_err(invalid)?;
    let mut output = Output::new(bytes_max, compressed.len().saturating_mul(USUAL_RATIO));
    let mut buffer = vec![0; CHUNK];
    let mut input = compressed;
    loop {
        let step = codec.step(input, &mut buffer).map_err(invalid)?;
        output.push(buffer.get(..step.written).unwrap_or_default())?;
        input = input.get(step.read..).unwrap_or_default();
        if step.ended {
            return match input.len() {
                0 => Ok(output.into_bytes()),
                extra => Err(CompressionError::Trailing { format: compression.format(), extra }),
            };
        }
        if step.read == 0 && step.written == 0 {
            return Err(CompressionError::Truncated(compression.format()));
        }
    }
}

enum Codec {
    Zlib(flate2::Decompress),
    Bzip2(bzip2::Decompress),
    Xz(Box<Stream>),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Decoder<'static>),
}

impl Codec {
    fn new(compression: Compression, compressed: &[u8]) -> Result<Self, String> {
        const GZIP: &[u8] = &[0x1f, 0x8b];
        const ZLIB_WINDOW_BITS: u8 = 15;
        Ok(match compression {
            Compression::Zlib if compressed.starts_with(GZIP) => {
                Self::Zlib(flate2::Decompress::new_gzip(ZLIB_WINDOW_BITS))
            }
            Compression::Zlib => Self::Zlib(flate2::Decompress::new(true)),
            Compression::Bzip2 => Self::Bzip2(bzip2::Decompress::new(false)),
            Compression::Xz => {
                let memory = WINDOW_BYTES_MAX + XZ_EXTRA_BYTES;
                let stream = Stream::new_stream_decoder(memory as u64, 0).map_err(text)?;
                Self::Xz(Box::new(stream))
            }
            Compression::Brotli => Self::Brotli(Box::new(BrotliState::new_strict(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            Compression::Zstd => {
                let mut decoder = Decoder::new().map_err(text)?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_BITS_MAX)).map_err(text)?;
                Self::Zstd(decoder)
            }
        })
    }

    fn step(&mut self, input: &[u8], buffer: &mut [u8]) -> Result<Step, String> {
        match self {
            Self::Zlib(zlib) => {
                let before = (zlib.total_in(), zlib.total_out());
                let status = zlib.decompress(input, buffer, flate2::FlushDecompress::None).map_err(text)?;
                let ended = status == flate2::Status::StreamEnd;
                Ok(Step::by_totals(before, (zlib.total_in(), zlib.total_out()), ended))
            }
            Self::Bzip2(bzip2) => {
                let before = (bzip2.total_in(), bzip2.total_out());
                let status = bzip2.decompress(input, buffer).map_err(text)?;
                let ended = status == bzip2::Status::StreamEnd;
                Ok(Step::by_totals(before, (bzip2.total_in(), bzip2.total_out()), ended))
            }
            Self::Xz(xz) => {
                let before = (xz.total_in(), xz.total_out());
                let status = xz.process(input, buffer, Action::Run).map_err(text)?;
                let ended = status == liblzma::stream::Status::StreamEnd;
                Ok(Step::by_totals(before, (xz.total_in(), xz.total_out()), ended))
            }
            Self::Brotli(state) => step_brotli(state, input, buffer),
            Self::Zstd(decoder) => {
                let (mut source, mut target) = (InBuffer::around(input), OutBuffer::around(buffer));
                let hint = decoder.run(&mut source, &mut target).map_err(text)?;
                Ok(Step { read: source.pos(), written: target.pos(), ended: hint == 0 })
            }
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn step_brotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    input: &[u8],
    buffer: &mut [u8],
) -> Result<Step, String> {
    let (mut in_left, mut read, mut out_left, mut written) = (input.len(), 0, buffer.len(), 0);
    let mut total = 0;
    let result = BrotliDecompressStream(
        &mut in_left,
        &mut read,
        input,
        &mut out_left,
        &mut written,
        buffer,
        &mut total,
        state,
    );
    match result {
        BrotliResult::ResultFailure => Err(format!("{:?}", state.error_code)),
        result => Ok(Step { read, written, ended: matches!(result, BrotliResult::ResultSuccess) }),
    }
}

impl Step {
    /// For codecs that only count from the stream's start.
    fn by_totals(before: (u64, u64), after: (u64, u64), ended: bool) -> Self {
        let since = |before: u64, after: u64| usize::try_from(after - before).unwrap_or(0);
        Self { read: since(before.0, after.0), written: since(before.1, after.1), ended }
    }
}
