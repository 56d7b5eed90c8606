//! Who is believed: anybody, or whom a trusted authority names.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

/// `ssl_cert_reqs=none`: encrypted, to whomever.
#[derive(Debug)]
pub(super) struct Anybody {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The usual rules, and what OpenSSL (so Celery) allows beyond them: a self-signed certificate that is itself in the file
/// of trusted ones, and a certificate for another host where that is not to be checked.
#[derive(Debug)]
pub(super) struct Trusting {
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    /// Certificates of `ssl_ca_certs`.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    pub(super) check_hostname: bool,
}

impl Trusting {
    fn name_matters(&self, cert: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        if !self.check_hostname {
            return Ok(());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(cert)?, name)
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(cert, between, name, ocsp, now) {
            // The chain was good: the name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_hostname => Ok(ServerCertVerified::assertion()),
            // The dates were good: they are looked at before. `openssl req -x509` makes such certificates.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if is_authority_itself(&why) && self.pinned.iter().any(|known| known == cert) =>
            {
                self.name_matters(cert, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// The certificate may sign others, which an end's certificate must not be able to by the usual rules.
fn is_authority_itself(why: &OtherError) -> bool {
    why.to_string().contains("CaUsedAsEndEntity")
}
