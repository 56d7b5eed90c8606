//! Signed bodies (`celery/security/serialization.py`, kombu's serializer `auth`): verified and taken apart, never made.
//!
//! What is signed is the payload alone: neither the headers nor the properties of the message are covered, here as in Celery.

mod certificates;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem;

pub use certificates::{CertificateError, Certificates, Digest};

/// Between the fields; the payload, which is the last of them, may hold it.
const SEPARATOR: &[u8] = b"\x00\x01";

/// A signed body that can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// Nothing was configured to verify it with.
    #[error("expected certificates to verify it with, found none configured")]
    NoCertificates,
    /// It is not put together as signed bodies are.
    #[error("expected {0}")]
    Shape(&'static str),
    /// Its signer has no certificate here.
    #[error("expected a signer with a certificate, found `{0}`")]
    UnknownSigner(String),
    /// The certificate of its signer is no longer valid.
    #[error("expected a certificate that is still valid, found that of `{0}` expired")]
    Expired(String),
    /// It is not what its signer signed.
    #[error("expected the signature of `{0}` to fit, found that it does not")]
    BadSignature(String),
}

/// What was signed, and how it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// Takes a body apart and verifies its signature.
pub(crate) fn open(body: &[u8], signers: &Certificates) -> Result<Payload, SignedError> {
    let fields = STANDARD.decode(body).map_err(|_| SignedError::Shape("a signed body in base64"))?;
    let fields = Bytes::from(fields);
    let mut rest = fields.clone();
    let mut field = || {
        let end = memmem::find(&rest, SEPARATOR).ok_or(SignedError::Shape("five fields in a signed body"))?;
        let field = rest.split_to(end);
        let _ = rest.split_to(SEPARATOR.len());
        Ok(field)
    };
    let (signer, signature, content_type, _content_encoding) = (field()?, field()?, field()?, field()?);
    let signer = STANDARD.decode(signer).ok().and_then(|signer| String::from_utf8(signer).ok());
    let signer = signer.ok_or(SignedError::Shape("a signer's name in base64"))?;
    let signature = STANDARD.decode(signature).map_err(|_| SignedError::Shape("a signature in base64"))?;
    let content_type = String::from_utf8(content_type.to_vec())
        .map_err(|_| SignedError::Shape("a content type in a signed body"))?;
    signers.verify(&signer, &rest, &signature)?;
    Ok(Payload { content_type, body: rest })
}

#[cfg(test)]
mod tests;
