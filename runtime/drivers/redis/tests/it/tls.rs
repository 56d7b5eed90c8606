//! TLS: who is believed, and who is told why not.

use crate::common::{Server, broker, free_port, pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rwork_backend::ResultBackend;
use rwork_protocol::TaskId;
use rwork_redis::{Error, Options, Redis, Role};
use tempfile::TempDir;

/// An authority and what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        pem(folder.path(), "ca.pem", &issuer.pem());
        Self { issuer, folder }
    }

    fn ca(&self) -> String {
        self.folder.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    /// Paths of a certificate for these names, and of its key.
    fn sign(&self, file: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = self.folder.path();
        (
            pem(folder, &format!("{file}.pem"), &certificate.pem()),
            pem(folder, &format!("{file}.key"), &key.serialize_pem()),
        )
    }

    fn server(&self, names: &[&str], clients: &str) -> Server {
        let (certificate, key) = self.sign("server", names, ExtendedKeyUsagePurpose::ServerAuth);
        tls_server(&certificate, &key, &self.ca(), clients)
    }
}

fn tls_server(certificate: &str, key: &str, ca: &str, clients: &str) -> Server {
    Server::with(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        ca,
        "--tls-auth-clients",
        clients,
    ])
}

async fn works(url: &str) {
    let redis = broker(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    assert_eq!(redis.get(&[TaskId::new("i").unwrap()]).await.unwrap(), [None]);
}

async fn refused(url: &str, parts: &[&str]) {
    let error = broker(url).await.err().unwrap_or_else(|| panic!("{url} lets us in"));
    let below = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let line = format!("{error}: {below} [{}]", error.hint().unwrap_or_default());
    for part in parts {
        assert!(line.contains(part), "{url}: expected {part:?} in {line}");
    }
}

#[tokio::test]
async fn a_verified_server() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let server = ours.server(&["localhost", "127.0.0.1"], "no");
    let (port, ca) = (server.port, ours.ca());
    for host in ["localhost", "127.0.0.1"] {
        works(&format!("rediss://{host}:{port}/1?ssl_cert_reqs=required&ssl_ca_certs={ca}")).await;
        works(&format!("rediss://{host}:{port}/1?ssl_cert_reqs=optional&ssl_ca_certs={ca}")).await;
        works(&format!("rediss://{host}:{port}/1?ssl_ca_certs={ca}")).await;
    }
    let distrusted = ["refused", "an authority that we don't trust", "`ssl_ca_certs`"];
    refused(&format!("rediss://localhost:{port}?ssl_ca_certs={}", others.ca()), &distrusted).await;
    // The system's authorities don't know ours either.
    refused(&format!("rediss://localhost:{port}?ssl_cert_reqs=required"), &["refused"]).await;
    let missing = ["refused", "failed to read `/no/such.pem`", "`ssl_ca_certs` of the URL"];
    refused(&format!("rediss://localhost:{port}?ssl_ca_certs=/no/such.pem"), &missing).await;
    let empty = pem(ours.folder.path(), "empty.pem", "");
    refused(&format!("rediss://localhost:{port}?ssl_ca_certs={empty}"), &["refused", "no certificate in it"])
        .await;
}

#[tokio::test]
async fn an_unverified_server() {
    let ours = Authority::new("ours");
    let server = ours.server(&["elsewhere.example"], "no");
    let port = server.port;
    works(&format!("rediss://localhost:{port}")).await;
    works(&format!("rediss://localhost:{port}?ssl_cert_reqs=none")).await;
    works(&format!("rediss://localhost:{port}?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=true")).await;
    let backend =
        Options::parse(&format!("rediss://localhost:{port}?ssl_cert_reqs=none"), Role::Backend).unwrap();
    Redis::connect(backend).await.unwrap();
    assert!(matches!(Options::parse("rediss://localhost", Role::Backend), Err(Error::Url { .. })));
}

#[tokio::test]
async fn a_certificate_for_another_host() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let server = ours.server(&["elsewhere.example"], "no");
    let (port, ca) = (server.port, ours.ca());
    let parts = ["refused", "its certificate is not for `localhost`", "`ssl_check_hostname=false`"];
    refused(&format!("rediss://localhost:{port}?ssl_ca_certs={ca}"), &parts).await;
    works(&format!("rediss://localhost:{port}?ssl_ca_certs={ca}&ssl_check_hostname=false")).await;
    let others = others.ca();
    let url = format!("rediss://localhost:{port}?ssl_ca_certs={others}&ssl_check_hostname=false");
    refused(&url, &["an authority that we don't trust"]).await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_authority() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    // As `openssl req -x509` makes them.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = pem(folder.path(), "self.pem", &params.self_signed(&key).unwrap().pem());
    let key = pem(folder.path(), "self.key", &key.serialize_pem());
    let server = tls_server(&certificate, &key, &certificate, "no");
    let port = server.port;
    works(&format!("rediss://localhost:{port}?ssl_ca_certs={certificate}")).await;
    refused(&format!("rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"), &["is not for `127.0.0.1`"])
        .await;
    let stranger = Authority::new("stranger");
    refused(&format!("rediss://localhost:{port}?ssl_ca_certs={}", stranger.ca()), &["refused"]).await;
}

#[tokio::test]
async fn a_server_that_wants_our_certificate() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let server = ours.server(&["localhost"], "yes");
    let url = format!("rediss://localhost:{}?ssl_ca_certs={}", server.port, ours.ca());
    let (certificate, key) = ours.sign("client", &["worker"], ExtendedKeyUsagePurpose::ClientAuth);
    works(&format!("{url}&ssl_certfile={certificate}&ssl_keyfile={key}")).await;
    refused(&url, &["it wants a certificate, and we showed none", "`ssl_certfile`"]).await;
    let (certificate, key) = others.sign("client", &["worker"], ExtendedKeyUsagePurpose::ClientAuth);
    refused(
        &format!("{url}&ssl_certfile={certificate}&ssl_keyfile={key}"),
        &["does not take our certificate"],
    )
    .await;
    let missing = ["failed to read", "`ssl_keyfile` of the URL"];
    refused(&format!("{url}&ssl_certfile={certificate}&ssl_keyfile=/no/such.key"), &missing).await;
}

#[tokio::test]
async fn one_side_speaks_tls_and_the_other_does_not() {
    let ours = Authority::new("ours");
    let tls = ours.server(&["localhost"], "no");
    refused(&format!("redis://localhost:{}", tls.port), &["failed to reach", "`rediss://`"]).await;
    let plain = Server::start();
    refused(&format!("rediss://localhost:{}", plain.port), &["TLS", "`redis://`"]).await;
    refused(&format!("rediss://localhost:{}", free_port()), &["connection refused"]).await;
}
