//! Certificates, right and wrong.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::*;

/// A server whose certificate is for `names`, and that certificate as PEM.
async fn tls_server(names: &[&str]) -> (Server, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_http(stream, |_| async { Response::new(full("secret")) }).await;
            }
        }
    })
    .await;
    (server, cert.pem())
}

fn trusting(pem: &str) -> Egress {
    let roots = Roots { extra_pem: pem.as_bytes().to_vec(), extra_only: true };
    let resolver = Answers::new(&[&["127.0.0.1"]]);
    Egress::with_resolver(Handle::current(), HttpLimits::default(), roots, resolver)
}

async fn fetch_as(egress: &Egress, host: &str, port: u16) -> Result<String, EgressError> {
    let origin = format!("https://{host}:{port}");
    let scope = scope(egress, &[origin.clone(), format!("https://127.0.0.1:{port}")]);
    fetch(egress, &scope, &origin).await
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (server, pem) = tls_server(&["api.example"]).await;
    let egress = trusting(&pem);
    for host in ["other.example", "sub.api.example", "127.0.0.1"] {
        let error = fetch_as(&egress, host, server.port()).await.unwrap_err();
        assert!(matches!(error.code(), ErrorCode::TlsCertificateError), "{host}: {error:?}");
    }
    assert_eq!(fetch_as(&egress, "api.example", server.port()).await.unwrap(), "secret");
    assert_eq!(fetch_as(&egress, "API.Example.", server.port()).await.unwrap(), "secret");
    assert_eq!(egress.idle_connections(), 1);
}

#[tokio::test]
async fn a_certificate_for_an_address_is_good_for_that_address() {
    let (server, pem) = tls_server(&["127.0.0.1"]).await;
    assert_eq!(fetch_as(&trusting(&pem), "127.0.0.1", server.port()).await.unwrap(), "secret");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let (server, _) = tls_server(&["api.example"]).await;
    let (_, other) = tls_server(&["api.example"]).await;
    let error = fetch_as(&trusting(&other), "api.example", server.port()).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::TlsCertificateError), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_an_error() {
    let server = Server::raw(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        read_to_the_end(&mut stream).await;
    })
    .await;
    let (_, pem) = tls_server(&["api.example"]).await;
    let error = fetch_as(&trusting(&pem), "api.example", server.port()).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::TlsProtocolError), "{error:?}");
}

#[tokio::test]
async fn without_a_usable_root_the_operator_is_told() {
    let (server, _) = tls_server(&["api.example"]).await;
    for (pem, expect) in [
        ("", "no trusted root"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "can't be read"),
    ] {
        let error = fetch_as(&trusting(pem), "api.example", server.port()).await.unwrap_err();
        assert!(matches!(error.code(), ErrorCode::ConfigurationError), "{error:?}");
        assert!(error.to_string().contains(expect), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_ends_is_given_up() {
    let server = Server::raw(|mut stream| async move { read_to_the_end(&mut stream).await }).await;
    let (_, pem) = tls_server(&["api.example"]).await;
    let error = fetch_as(&trusting(&pem), "api.example", server.port()).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::ConnectionTimeout), "{error:?}");
}
