//! What must hold for any input, one function for each decoder. The fuzz targets call these for as long as they are let,
//! this crate's tests some hundred times.
//!
//! A function that returns is satisfied; what it finds wrong is a panic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::envelope;
use crate::json::{self, Kind, Value};
use crate::transcode::{TranscodeError, msgpack as from_msgpack, yaml as from_yaml};
use crate::{
    AcceptContent, Certificates, Compression, ContentType, DecodeLimits, Digest, Exception, Headers, Message,
    Record, Signature, Timestamp, decode, decompress, decompress_stored, guest_headers, repr, signed,
};

/// Limit of whatever is made larger, in bytes. Small, so that it is met.
pub const CAP: usize = 64 << 10;

/// A message: a byte for its content type, one for its compression, headers up to a zero byte, then the body.
pub fn message(data: &[u8]) {
    let Some((&[content, compression], rest)) = data.split_first_chunk() else { return };
    let (headers, body) = rest.split_at(memchr::memchr(0, rest).unwrap_or(rest.len()));
    let mut text = headers.to_vec();
    if let Some(name) = NAMES.get(usize::from(compression)) {
        // The last of several headers counts.
        let end = text.trim_ascii_end().strip_suffix(b"}").map(<[u8]>::len);
        if let Some(end) = end {
            text.truncate(end);
            text.extend_from_slice(format!(", \"compression\": \"{name}\"}}").as_bytes());
        }
    }
    let message = Message {
        headers: text.into(),
        content_type: TYPES.get(usize::from(content)).unwrap_or(&ContentType::Json).media_type().to_owned(),
        body: Bytes::copy_from_slice(body.strip_prefix(&[0]).unwrap_or(body)),
        ..Message::default()
    };
    let limits = limits();
    match decode(&message, &limits) {
        Ok(decoded) => {
            // An absent `argsrepr` is written as an empty one, hence not the values themselves.
            let encoded = decoded.encode();
            let again = decode(&encoded, &limits).map(|again| again.encode());
            assert_eq!(again.as_ref(), Ok(&encoded), "a message that was read is not read again");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.kind().is_empty());
            if let Some((request, _)) = error.into_request() {
                assert!(decode(&request.encode(), &limits).is_ok());
            }
        }
    }
}

const TYPES: [ContentType; 5] =
    [ContentType::Json, ContentType::Msgpack, ContentType::Yaml, ContentType::Signed, ContentType::Pickle];

const NAMES: [&str; 6] = ["gzip", "bzip2", "lzma", "brotli", "zstd", "none"];

fn limits() -> DecodeLimits {
    DecodeLimits {
        decompressed_bytes_max: CAP,
        accept: AcceptContent::parse(["json", "msgpack", "yaml", "auth"]).unwrap_or_default(),
        ..DecodeLimits::default()
    }
}

/// Signed bodies, before and after base64. Nobody is trusted, so that none may be read.
pub fn signed(data: &[u8]) {
    let Ok(nobody) = Certificates::new([] as [&[u8]; 0], Digest::Sha256, Timestamp::default) else { return };
    assert!(signed::open(data, &nobody).is_err());
    assert!(signed::open(STANDARD.encode(data).as_bytes(), &nobody).is_err());
}

/// JSON: the scanner and the parser agree, and what is read is written back the same.
pub fn json(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    let checked = json::check(&text);
    let parsed = Value::parse(&text);
    assert_eq!(checked.is_ok(), parsed.is_ok());
    assert_eq!(checked == Ok(Kind::Array), json::elements(&text).is_ok());
    assert_eq!(checked == Ok(Kind::Object), json::entries(&text).is_ok());
    assert_eq!(checked == Ok(Kind::String), json::text(&text).is_ok());
    if let Ok(value) = parsed {
        let written = value.to_bytes();
        let again = Value::parse(&written).map(|value| value.to_bytes());
        assert_eq!(again.as_ref(), Ok(&written));
        assert!(written.is_ascii());
        assert_eq!(json::without_lone_surrogates(&text), None, "half a character was read");
    }
    if let Some(repaired) = json::without_lone_surrogates(&text) {
        assert_eq!(repaired.len(), text.len());
        assert_eq!(json::without_lone_surrogates(&repaired), None);
    }
    let _ =
        (json::merge(&text, &text), json::prepend(&text, std::slice::from_ref(&text)), json::is_empty(&text));
    let _ = json::check_typed(&text, &[]);
    for shown in [repr::args(&text), repr::kwargs(&text), repr::value(&text)] {
        assert!(shown.chars().count() <= repr::CHARACTERS_MAX * 2 + 32, "{shown}");
    }
}

/// `MessagePack`.
pub fn msgpack(data: &[u8]) {
    made(from_msgpack::to_json(data, CAP));
}

/// YAML.
pub fn yaml(data: &[u8]) {
    made(from_yaml::to_json(data, CAP));
}

/// Nothing passes the limit, and what comes out is JSON in ASCII. Aliases may nest it deeper than the parser goes, and a key
/// or a number may be one that only the parser refuses.
fn made(json: Result<Bytes, TranscodeError>) {
    match json {
        Ok(json) => {
            assert!(json.len() <= CAP && json.is_ascii());
            if let Err(error) = json::check(&json) {
                assert!(error.to_string().contains("recursion"), "{error}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// zlib and gzip.
pub fn zlib(data: &[u8]) {
    decompressed(data, Compression::Zlib);
}

/// bzip2.
pub fn bzip2(data: &[u8]) {
    decompressed(data, Compression::Bzip2);
}

/// xz.
pub fn xz(data: &[u8]) {
    decompressed(data, Compression::Xz);
}

/// brotli.
pub fn brotli(data: &[u8]) {
    decompressed(data, Compression::Brotli);
}

/// Zstandard.
pub fn zstd(data: &[u8]) {
    decompressed(data, Compression::Zstd);
}

fn decompressed(data: &[u8], compression: Compression) {
    match decompress(data, compression, CAP) {
        Ok(plain) => assert!(plain.len() <= CAP),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Result records and exceptions, compressed ones too.
pub fn record(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    if let Ok(record) = Record::decode(&text) {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
    }
    if let Ok(exception) = Exception::decode(&text) {
        assert!(!exception.to_string().is_empty());
        assert_eq!(Exception::decode(&exception.encode()).as_ref(), Ok(&exception));
    }
    if let Ok(plain) = decompress_stored(&text, CAP) {
        assert!(plain.len() <= CAP.max(text.len()));
    }
}

/// Signatures.
pub fn signature(data: &[u8]) {
    if let Ok(signature) = Signature::parse(&Bytes::copy_from_slice(data)) {
        assert_eq!(Signature::parse(&signature.encode()).as_ref(), Ok(&signature));
    }
}

/// Header tables.
pub fn headers(data: &[u8]) {
    let text = Bytes::copy_from_slice(data);
    let visible = guest_headers(&text);
    assert_eq!(guest_headers(&visible), visible);
    if let Ok(headers) = Headers::parse(&text) {
        let encoded = headers.encode();
        assert_eq!(Headers::parse(&encoded).map(|again| again.encode()).as_ref(), Ok(&encoded));
        assert_eq!(guest_headers(&encoded), encoded);
    }
}

/// Points in time.
pub fn time(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(time) = Timestamp::parse_iso(text) {
        assert_eq!(Timestamp::parse_iso(&time.to_iso()), Some(time));
    }
}

/// kombu's envelope: reads, marks and reads again.
pub fn kombu_envelope(data: &[u8]) {
    let source = Bytes::copy_from_slice(data);
    if let Ok(entry) = envelope::read_held(&source) {
        assert!(entry.envelope.len() < source.len(), "more was read than there is");
    }
    let (element, _) = envelope::unwrap_held(&source);
    assert!(element.len() <= source.len(), "more was read than there is");
    let before = envelope::read(&source);
    if let Ok(found) = &before {
        assert!(found.message.size() <= source.len() + 2, "a message grew from reading");
        assert!(found.delivery_count > 0, "there is no delivery number 0");
    }
    let Ok(marked) = envelope::redelivered(&source, 7) else {
        assert!(before.is_err(), "an envelope that was read can't be marked");
        return;
    };
    let after = envelope::read(&marked);
    assert!(
        after.is_ok() == before.is_ok() || source.len() < marked.len(),
        "marking changed more than marks"
    );
    if let (Ok(before), Ok(after)) = (before, after) {
        assert!(after.redelivered && after.delivery_count == 7, "the marks can't be read");
        assert_eq!(before.message.body, after.message.body);
        assert_eq!(before.message.properties, after.message.properties);
    }
    let Ok(renewed) = envelope::renewed(&marked) else { panic!("what was marked can't be renewed") };
    if let Ok(fresh) = envelope::read(&renewed) {
        assert!(!fresh.redelivered && fresh.delivery_count == 1, "the marks were not taken back");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::tests::soup;

    const ALL: [fn(&[u8]); 14] = [
        message, signed, json, msgpack, yaml, zlib, bzip2, xz, brotli, zstd, record, signature, headers, time,
    ];

    proptest! {
        #[test]
        fn every_target_holds(bytes in prop::collection::vec(any::<u8>(), 0..120), text in soup(), kind in 0_u8..7, packed in 0_u8..7) {
            for target in ALL {
                target(&bytes);
                target(&text);
            }
            message(&[&[kind, packed], b"{\"task\": \"t\", \"id\": \"i\"}\0".as_slice(), &text].concat());
        }
    }

    #[test]
    fn a_message_reaches_every_decoder() {
        let headers = b"{\"task\": \"t\", \"id\": \"i\"}\0";
        let body = b"[[1], {}, null]";
        for (name, compression) in NAMES.iter().zip(0..) {
            let Some(known) = Compression::of(name) else { continue };
            let packed = crate::compress(body, known).unwrap();
            message(&[&[0, compression], headers.as_slice(), &packed].concat());
        }
        message(&[&[2, 5], headers.as_slice(), b"- [1]\n- {}\n- \n"].concat());
    }
}
