//! TLS towards servers: one configuration for all, its roots loaded when the first `https` request comes.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::destination::{Destination, HostName};
use super::error::EgressError;

/// Where the trusted roots come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Certificates of further authorities, PEM, any number in one text.
    pub extra_pem: Vec<u8>,
    /// Trust the extra ones alone, not the system's.
    pub extra_only: bool,
}

/// Made once per worker; cheap until it is used.
#[derive(Debug)]
pub(super) struct Tls {
    roots: Roots,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, config: OnceCell::new() }
    }

    /// Performs the handshake on a connected stream.
    pub(super) async fn connect(
        &self,
        destination: &Destination,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, EgressError> {
        let config = self.config.get_or_try_init(|| load(self.roots.clone())).await?;
        let failed = |source| EgressError::Tls { destination: destination.clone(), source };
        let name = server_name(&destination.host).map_err(failed)?;
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(failed)
    }
}

fn server_name(host: &HostName) -> io::Result<ServerName<'static>> {
    match host {
        HostName::Address(address) => Ok(ServerName::from(*address)),
        HostName::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other),
    }
}

/// Reading some hundred certificates takes milliseconds of file access and parsing, so it happens off the runtime.
async fn load(roots: Roots) -> Result<Arc<ClientConfig>, EgressError> {
    let made = tokio::task::spawn_blocking(move || config(&roots)).await;
    made.unwrap_or_else(|lost| Err(lost.to_string()))
        .map(Arc::new)
        .map_err(|reason| EgressError::TlsUnusable { reason })
}

fn config(roots: &Roots) -> Result<ClientConfig, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&roots.extra_pem) {
        let certificate =
            certificate.map_err(|error| format!("an extra certificate can't be read: {error}"))?;
        store.add(certificate).map_err(|error| format!("an extra certificate can't be used: {error}"))?;
    }
    if !roots.extra_only {
        add_native(&mut store);
    }
    if store.is_empty() {
        return Err(
            "no trusted root certificate was found; install `ca-certificates` or name a file of roots".into(),
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A broken file among the system's roots costs that file alone.
fn add_native(store: &mut RootCertStore) {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "some of the system's root certificates can't be read");
    }
    let (added, ignored) = store.add_parsable_certificates(native.certs);
    tracing::debug!(added, ignored, "loaded the system's root certificates");
}
