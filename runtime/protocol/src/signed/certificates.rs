//! Whose signatures are trusted: certificates by the name under which messages are signed.

use std::collections::BTreeMap;
use std::fmt;

use rsa::pss::{Signature, VerifyingKey};
use rsa::signature::Verifier as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPublicKey};
use sha2::{Sha256, Sha384, Sha512};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;

use super::SignedError;
use crate::Timestamp;

/// Largest key that is worked with, in bits; twice what anybody uses.
const KEY_BITS_MAX: usize = 8192;

/// The hash that signatures are made with (Celery's `security_digest`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digest {
    /// Celery's default.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Digest {
    /// By Celery's name for it: `sha256`, `sha384`, `sha512`.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A certificate that can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not a certificate.
    #[error("expected a certificate in PEM: {0}")]
    Invalid(String),
    /// Its key is not of the one kind that Celery signs with, or unusable.
    #[error(
        "expected a certificate with an RSA key of at most {KEY_BITS_MAX} bits, found that of `{0}` with another"
    )]
    Key(String),
    /// It is no longer valid.
    #[error("expected a certificate that is still valid, found that of `{0}` expired")]
    Expired(String),
    /// Two of them go by one name.
    #[error("expected one certificate for each signer, found two of `{0}`")]
    Duplicate(String),
}

/// The certificates of those who may sign messages (Celery's `security_cert_store`).
pub struct Certificates {
    by_signer: BTreeMap<String, Certificate>,
    digest: Digest,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

#[derive(Clone, PartialEq, Eq)]
struct Certificate {
    key: RsaPublicKey,
    /// Seconds since the Unix epoch from which on it is expired.
    expires: i64,
}

impl Certificates {
    /// From certificates in PEM, the first of each text. `clock` tells the time whenever a signature is verified, for
    /// certificates expire while a worker runs.
    ///
    /// # Errors
    /// When one is not a certificate, has no RSA key, is expired already, or occurs twice.
    pub fn new<T: AsRef<[u8]>>(
        texts: impl IntoIterator<Item = T>,
        digest: Digest,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Result<Self, CertificateError> {
        let now = seconds(clock());
        let mut by_signer = BTreeMap::new();
        for text in texts {
            let (signer, certificate) = read(text.as_ref(), digest)?;
            if certificate.expires <= now {
                return Err(CertificateError::Expired(signer));
            }
            if by_signer.insert(signer.clone(), certificate).is_some() {
                return Err(CertificateError::Duplicate(signer));
            }
        }
        Ok(Self { by_signer, digest, clock: Box::new(clock) })
    }

    /// Whether anybody is trusted at all.
    pub fn is_empty(&self) -> bool {
        self.by_signer.is_empty()
    }

    pub(super) fn verify(&self, signer: &str, payload: &[u8], signature: &[u8]) -> Result<(), SignedError> {
        let certificate =
            self.by_signer.get(signer).ok_or_else(|| SignedError::UnknownSigner(shown(signer)))?;
        if certificate.expires <= seconds((self.clock)()) {
            return Err(SignedError::Expired(signer.to_owned()));
        }
        let fits =
            Signature::try_from(signature).is_ok_and(|signature| self.fits(certificate, payload, &signature));
        if fits { Ok(()) } else { Err(SignedError::BadSignature(signer.to_owned())) }
    }

    /// The salt is as long as the key allows, which other libraries can't be told.
    fn fits(&self, certificate: &Certificate, payload: &[u8], signature: &Signature) -> bool {
        let key = certificate.key.clone();
        let Some(salt) = salt_bytes(&key, self.digest) else { return false };
        match self.digest {
            Digest::Sha256 => VerifyingKey::<Sha256>::new_with_salt_len(key, salt).verify(payload, signature),
            Digest::Sha384 => VerifyingKey::<Sha384>::new_with_salt_len(key, salt).verify(payload, signature),
            Digest::Sha512 => VerifyingKey::<Sha512>::new_with_salt_len(key, salt).verify(payload, signature),
        }
        .is_ok()
    }
}

/// The longest salt that a key of this size has room for; `None` when there is room for none.
fn salt_bytes(key: &RsaPublicKey, digest: Digest) -> Option<usize> {
    let encoded = key.n().bits().checked_sub(1)?.div_ceil(8);
    encoded.checked_sub(digest.bytes() + 2)
}

fn seconds(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(1000)
}

/// The beginning of a name that a stranger has chosen.
fn shown(signer: &str) -> String {
    const SHOWN_MAX: usize = 200;
    signer.chars().take(SHOWN_MAX).collect()
}

fn read(text: &[u8], digest: Digest) -> Result<(String, Certificate), CertificateError> {
    let invalid = |why: String| CertificateError::Invalid(why);
    let pem = Pem::iter_from_buffer(text)
        .filter_map(Result::ok)
        .find(|pem| pem.label == "CERTIFICATE")
        .ok_or_else(|| invalid("none is there".to_owned()))?;
    let parsed = pem.parse_x509().map_err(|why| invalid(why.to_string()))?;
    let signer = signer(&parsed).ok_or_else(|| invalid("its issuer is no text".to_owned()))?;
    let key = public_key(&parsed)
        .filter(|key| salt_bytes(key, digest).is_some())
        .ok_or_else(|| CertificateError::Key(signer.clone()))?;
    Ok((signer, Certificate { key, expires: parsed.validity().not_after.timestamp() }))
}

/// `US Acme worker1 18099…4486`: the issuer's attributes in the certificate's order, then the serial number.
fn signer(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut name = String::new();
    for attribute in certificate.issuer().iter_attributes() {
        name.push_str(attribute.as_str().ok()?);
        name.push(' ');
    }
    // Issuers without attributes make a name that begins with the blank.
    let blank = if name.is_empty() { " " } else { "" };
    Some(format!("{name}{blank}{}", certificate.tbs_certificate.serial))
}

fn public_key(certificate: &X509Certificate<'_>) -> Option<RsaPublicKey> {
    let PublicKey::RSA(key) = certificate.public_key().parsed().ok()? else { return None };
    let (n, e) = (BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent));
    RsaPublicKey::new_with_max_size(n, e, KEY_BITS_MAX).ok()
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signers: Vec<_> = self.by_signer.keys().collect();
        f.debug_struct("Certificates").field("digest", &self.digest).field("signers", &signers).finish()
    }
}

/// The same signers with the same keys, whatever the clock.
impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.by_signer == other.by_signer
    }
}

impl Eq for Certificates {}
