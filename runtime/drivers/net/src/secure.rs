//! TLS as the URL asks for it. Certificates are read at each connecting, so that renewed files are taken without a restart.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rwork_protocol::service::RedactedUrl;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::verifier::{Anybody, Trusting};
use crate::{CertReqs, Failure, TlsOptions};

/// How a kind of server calls what the hints speak of.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The kind of server: `Redis`.
    pub name: &'static str,
    /// The scheme of plain connections: `redis://`.
    pub plain: &'static str,
    /// Where TLS would be: "the server's `tls-port`".
    pub tls_port: &'static str,
    /// The setting that makes a server ask for no certificate: "`tls-auth-clients no`".
    pub no_client_certificates: &'static str,
}

/// Speaks TLS over a connection. Has no time limit of its own.
///
/// # Errors
/// When a file can't be read, or one of both sides does not trust the other.
///
/// # Cancel safety
/// Not cancel safe: the connection is gone.
pub async fn secure(
    stream: TcpStream,
    host: &str,
    options: &TlsOptions,
    url: &RedactedUrl,
    words: Words,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        Failure::refused(url, format!("`{host}` can't be in a certificate"), "check the host name")
    })?;
    let (wanted, shown) = (options.clone(), url.clone());
    // Reads files, and for the system's roots a few hundred of them.
    let config = tokio::task::spawn_blocking(move || configure(&wanted, &shown)).await;
    let config =
        config.map_err(|_| Failure::unreachable(url, "reading certificates was interrupted", ""))??;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| explain(url, host, &error, words))
}

fn configure(options: &TlsOptions, url: &RedactedUrl) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(options, url, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::refused(url, error.to_string(), ""))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(certfile) = &options.certfile else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certfile, "ssl_certfile", url)?;
    let keyfile = options.keyfile.as_ref().unwrap_or(certfile);
    let key = PrivateKeyDer::from_pem_file(keyfile)
        .map_err(|error| unreadable(url, "ssl_keyfile", keyfile, &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unreadable(url, "ssl_keyfile", keyfile, &error))
}

fn verifier(
    options: &TlsOptions,
    url: &RedactedUrl,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    let algorithms = provider.signature_verification_algorithms;
    if options.cert_reqs == CertReqs::None {
        return Ok(Arc::new(Anybody { algorithms }));
    }
    let trusted = match &options.ca_certs {
        Some(path) => certificates(path, "ssl_ca_certs", url)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(trusted.iter().cloned());
    if taken == 0 {
        let hint =
            "install the system's certificates (Debian: `ca-certificates`), or name a file by `ssl_ca_certs`";
        return Err(Failure::refused(url, "there is no certificate authority to verify it by", hint));
    }
    let webpki =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| Failure::refused(url, error.to_string(), "check the file of `ssl_ca_certs`"))?;
    let pinned = if options.ca_certs.is_some() { trusted } else { Vec::new() };
    Ok(Arc::new(Trusting { webpki, pinned, check_hostname: options.check_hostname }))
}

fn certificates(
    path: &Path,
    parameter: &str,
    url: &RedactedUrl,
) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unreadable(url, parameter, path, &error))?;
    if found.is_empty() {
        return Err(unreadable(url, parameter, path, &"no certificate in it"));
    }
    Ok(found)
}

fn unreadable(url: &RedactedUrl, parameter: &str, path: &Path, why: &dyn std::fmt::Display) -> Failure {
    let what = format!("failed to read `{}`: {why}", path.display());
    Failure::refused(
        url,
        what,
        format!("`{parameter}` of the URL has to name a PEM file that rwork may read"),
    )
}

fn explain(url: &RedactedUrl, host: &str, error: &io::Error, words: Words) -> Failure {
    let refused = |why: String, hint: String| Failure::refused(url, why, hint);
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        let hint = format!("if that port does not speak TLS, use `{}`", words.plain);
        return Failure::unreachable(url, format!("the TLS handshake was broken off: {error}"), hint);
    };
    match cause {
        rustls::Error::InvalidCertificate(why) => distrusted(url, host, why),
        rustls::Error::InvalidMessage(_) => refused(
            "what listens there does not speak TLS".to_owned(),
            format!("use `{}` if that port is a plain one, or {}", words.plain, words.tls_port),
        ),
        rustls::Error::AlertReceived(alert) => alerted(url, *alert, words),
        _ => refused(format!("the TLS handshake failed: {cause}"), String::new()),
    }
}

/// Why the server hung up.
pub fn alerted(url: &RedactedUrl, alert: AlertDescription, words: Words) -> Failure {
    let is_ours = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied
    );
    let (what, hint) = if is_ours {
        let what = match alert {
            AlertDescription::CertificateRequired => "it wants a certificate, and we showed none",
            _ => "it does not take our certificate",
        };
        (
            format!("{what} (TLS alert {alert:?})"),
            format!(
                "name one that it trusts by `ssl_certfile` and `ssl_keyfile`, or set {} there",
                words.no_client_certificates
            ),
        )
    } else {
        (format!("it broke the TLS handshake off (TLS alert {alert:?})"), String::new())
    };
    Failure::refused(url, what, hint)
}

fn distrusted(url: &RedactedUrl, host: &str, why: &CertificateError) -> Failure {
    let (what, hint) = match why {
        // A bad signature: a trusted authority has the name of its issuer, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "its certificate is signed by an authority that we don't trust".to_owned(),
            "name that authority's certificate by `ssl_ca_certs`, or don't verify by `ssl_cert_reqs=none`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("its certificate is not for `{host}`"),
            "use a host name of the certificate, or don't check it by `ssl_check_hostname=false`",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "renew the server's certificate, and check the clock of this machine",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".to_owned(), "check the clock of this machine")
        }
        other => (format!("its certificate can't be used: {other}"), "renew the server's certificate"),
    };
    Failure::refused(url, what, hint)
}
