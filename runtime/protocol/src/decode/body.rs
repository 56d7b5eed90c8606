//! What a message carries made into JSON: decompressed, then transcoded. Plain JSON is handed on as it is.

use std::borrow::Cow;

use bytes::Bytes;

use super::DecodeLimits;
use crate::content::{AcceptContent, ContentType};
use crate::error::Fault;
use crate::transcode::{TranscodeError, msgpack, yaml};
use crate::{Compression, CompressionError, Message, SignedError, decompress, signed};

/// The body as JSON text, which nobody has looked at yet. `compression` is what the headers say of it.
pub(super) fn to_json<'a>(
    message: &'a Message,
    compression: Option<&str>,
    limits: &DecodeLimits,
) -> Result<Cow<'a, Bytes>, Fault> {
    let kind = limits.accept.decide(&message.content_type)?;
    let plain = match compression {
        None | Some("") => Cow::Borrowed(&message.body),
        Some(name) => {
            let known = Compression::of(name).ok_or_else(|| CompressionError::Unknown(name.to_owned()));
            let plain =
                known.and_then(|known| decompress(&message.body, known, limits.decompressed_bytes_max));
            Cow::Owned(plain.map_err(Fault::Compression)?)
        }
    };
    match kind {
        ContentType::Signed => open(&plain, limits),
        kind => transcode(kind, plain, limits),
    }
}

/// What is in a signed body. Its content type need not be one that is accepted, as in Celery: else a worker that takes signed
/// messages alone would have to take unsigned ones too. A pickle stays a pickle, whoever signed it.
fn open<'a>(body: &[u8], limits: &DecodeLimits) -> Result<Cow<'a, Bytes>, Fault> {
    let signers = limits.signers.as_ref().ok_or(Fault::Untrusted(SignedError::NoCertificates))?;
    let payload = signed::open(body, signers).map_err(Fault::Untrusted)?;
    let kind = AcceptContent::SIGNABLE.decide(&payload.content_type)?;
    transcode(kind, Cow::Owned(payload.body), limits)
}

fn transcode<'a>(
    kind: ContentType,
    body: Cow<'a, Bytes>,
    limits: &DecodeLimits,
) -> Result<Cow<'a, Bytes>, Fault> {
    let max = limits.decompressed_bytes_max;
    let made = |format: &'static str, json: Result<Bytes, TranscodeError>| {
        json.map(Cow::Owned).map_err(|why| Fault::Transcode { format, why })
    };
    match kind {
        ContentType::Msgpack => made("MessagePack", msgpack::to_json(&body, max)),
        ContentType::Yaml => made("YAML", yaml::to_json(&body, max)),
        // Neither of the last two gets here.
        ContentType::Json | ContentType::Signed | ContentType::Pickle => Ok(body),
    }
}
