//! What Celery signed, and what nobody did. `tests/golden/make.py` made certificates and bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::{AcceptContent, DecodeError, DecodeLimits, Message, TaskMessage, Timestamp, decode};

/// 2026-11-21.
const NOW: i64 = 1_795_219_200_000_000;

fn now() -> Timestamp {
    Timestamp::from_micros(NOW)
}

/// The certificate and the body of this name.
fn vector(name: &str) -> (Vec<u8>, String) {
    let lines = include_str!("../../tests/golden/signed.tsv").lines();
    let mut fields = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    let fields = fields.find(|fields| fields[0] == name).unwrap();
    (STANDARD.decode(fields[1]).unwrap(), fields[2].to_owned())
}

fn store(names: &[&str], digest: Digest) -> Result<Certificates, CertificateError> {
    Certificates::new(names.iter().map(|name| vector(name).0), digest, now)
}

fn read(body: &str, signers: Certificates) -> Result<TaskMessage, DecodeError> {
    let accept = AcceptContent::parse(["auth"]).unwrap();
    let limits = DecodeLimits { accept, signers: Some(Arc::new(signers)), ..DecodeLimits::default() };
    decode(&message(body), &limits)
}

fn message(body: &str) -> Message {
    Message {
        headers: Bytes::from_static(br#"{"task": "t", "id": "i"}"#),
        content_type: "application/data".to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..Message::default()
    }
}

#[test]
fn what_celery_signed_is_read() {
    for (name, digest, args) in [
        ("valid", Digest::Sha256, "[1, 2]"),
        ("separator", Digest::Sha256, r#"["\u0000\u0001"]"#),
        ("odd", Digest::Sha256, "[3]"),
        ("large", Digest::Sha256, r#"[{"__type__": "base64", "__value__": "AAH/"}]"#),
        ("sha512", Digest::Sha512, "[4]"),
    ] {
        let signers = store(&["valid", "separator", "odd", "large", "sha512"], digest).unwrap();
        assert_eq!(read(&vector(name).1, signers).unwrap().args, args, "{name}");
    }
}

#[test]
fn what_is_not_to_be_trusted_is_not_read() {
    let signers = || store(&["valid", "pickle", "sha512"], Digest::Sha256).unwrap();
    let refused = |body: &str| read(body, signers()).unwrap_err();
    let fields = |name: &str| String::from_utf8(STANDARD.decode(vector(name).1).unwrap()).unwrap();
    let forged = STANDARD.encode(fields("valid").replace("[[1, 2]", "[[1, 3]"));
    for (body, kind, text) in [
        (vector("odd").1, "untrusted", "expected a signer with a certificate, found `US Acmé odd "),
        (forged, "untrusted", "expected the signature of `US Acmé valid "),
        (vector("sha512").1, "untrusted", "expected the signature of `US Acmé sha512 "),
        (
            vector("pickle").1,
            "content-refused",
            "`application/x-python-serialize`, a pickle, which is never read",
        ),
        ("[[], {}, null]".to_owned(), "untrusted", "expected a signed body in base64"),
        (STANDARD.encode("x\0\x01y"), "untrusted", "expected five fields in a signed body"),
        (STANDARD.encode("%\0\x01\0\x01\0\x01\0\x01"), "untrusted", "expected a signer's name in base64"),
        (STANDARD.encode("\0\x01\0\x01\0\x01\0\x01"), "untrusted", "a signer with a certificate, found ``"),
    ] {
        let error = refused(&body);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.task_id.is_some());
    }
    let accept = AcceptContent::parse(["auth"]).unwrap();
    let without = DecodeLimits { accept, ..DecodeLimits::default() };
    let error = decode(&message(&vector("valid").1), &without).unwrap_err();
    assert!(error.to_string().contains("found none configured"), "{error}");
    // Where only signed bodies are taken, no other is.
    let plain = Message { content_type: "application/json".to_owned(), ..message("[[], {}, null]") };
    assert_eq!(decode(&plain, &without).unwrap_err().kind(), "content-refused");
}

#[test]
fn certificates_expire_while_a_worker_runs() {
    static CLOCK: AtomicI64 = AtomicI64::new(1_600_000_000_000_000);
    let clock = || Timestamp::from_micros(CLOCK.load(Ordering::Relaxed));
    let (certificate, body) = vector("expired");
    let signers = || Certificates::new([&certificate], Digest::Sha256, clock);
    let while_valid = signers().unwrap();
    assert_eq!(open(body.as_bytes(), &while_valid).unwrap().body, "[[5], {}, null]");
    CLOCK.store(NOW, Ordering::Relaxed);
    assert!(matches!(open(body.as_bytes(), &while_valid), Err(SignedError::Expired(_))));
    assert!(matches!(signers(), Err(CertificateError::Expired(_))));
}

#[test]
fn a_store_holds_each_signer_once_and_by_rsa() {
    assert!(matches!(store(&["valid", "valid"], Digest::Sha256), Err(CertificateError::Duplicate(_))));
    let error = store(&["curve"], Digest::Sha256).unwrap_err().to_string();
    assert!(error.starts_with("expected a certificate with an RSA key"), "{error}");
    let error = Certificates::new(["no certificate"], Digest::Sha256, now).unwrap_err().to_string();
    assert_eq!(error, "expected a certificate in PEM: none is there");
    assert!(
        Certificates::new(
            ["-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n"],
            Digest::Sha256,
            now
        )
        .is_err()
    );
    let shown = format!("{:?}", store(&["valid"], Digest::Sha256).unwrap());
    assert!(shown.contains("US Acmé valid ") && !shown.contains("RsaPublicKey"), "{shown}");
    assert!(store(&[], Digest::Sha256).unwrap().is_empty());
    assert_eq!((Digest::of("SHA512"), Digest::of("md5")), (Some(Digest::Sha512), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_altered_byte_passes(place in any::<prop::sample::Index>(), by in 1_u8..=255) {
        let signers = store(&["valid"], Digest::Sha256).unwrap();
        let whole = STANDARD.decode(vector("valid").1).unwrap();
        let mut altered = whole.clone();
        altered[place.index(whole.len())] ^= by;
        match open(STANDARD.encode(&altered).as_bytes(), &signers) {
            // Content type and encoding are not signed, in Celery neither.
            Ok(payload) => prop_assert!(whole.ends_with(&payload.body)),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_body_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let signers = store(&["valid"], Digest::Sha256).unwrap();
        prop_assert!(open(&bytes, &signers).is_err());
        prop_assert!(open(STANDARD.encode(&bytes).as_bytes(), &signers).is_err());
    }
}
