//! Certificates for one server, of an authority of its own.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Files of a server's TLS, PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority that clients must trust.
    pub authority: PathBuf,
    /// The server's certificate, for `localhost` and `127.0.0.1`.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Tls {
    /// Makes all three in a directory.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn make(directory: &Path) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of another name than the certificate: what has the name of its issuer passes for self-signed.
        authority.distinguished_name.push(DnType::CommonName, "authority of one test");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
        let tls = Self {
            authority: directory.join("authority.pem"),
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        };
        std::fs::write(&tls.authority, authority.pem())?;
        std::fs::write(&tls.certificate, certificate.pem())?;
        std::fs::write(&tls.key, key.serialize_pem())?;
        Ok(tls)
    }
}
