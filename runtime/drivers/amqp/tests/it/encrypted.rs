//! TLS: who is believed, and who is told why not.

use crate::connecting::{connect, refusal, works};
use crate::rabbitmq::{Clients, RabbitServer};
use crate::tls::Tls;

#[tokio::test]
async fn a_server_is_believed_by_its_own_authority() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    works(&connect(&server.tls_url(&vhost)).await).await;
    let unverified =
        format!("amqps://guest:guest@127.0.0.1:{}/{vhost}?ssl_cert_reqs=none", server.tls_port());
    works(&connect(&unverified).await).await;
}

#[tokio::test]
async fn a_server_of_another_authority_is_not() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = Tls::make(folder.path()).unwrap();
    let url = |authority: &std::path::Path| {
        format!(
            "amqps://guest:hunter2@localhost:{}/{vhost}?ssl_ca_certs={}",
            server.tls_port(),
            authority.display()
        )
    };
    let line = refusal(&url(&other.authority)).await;
    assert!(line.starts_with("refused: amqps://***@localhost:"), "{line}");
    assert!(
        line.contains(
            "signed by an authority that we don't trust [name that authority's certificate by `ssl_ca_certs`"
        ),
        "{line}"
    );
    let line = refusal(&url(&folder.path().join("missing.pem"))).await;
    assert!(
        line.contains("failed to read") && line.contains("[`ssl_ca_certs` of the URL has to name a PEM file"),
        "{line}"
    );
    let line = refusal(&format!("amqps://guest:hunter2@localhost:{}/{vhost}", server.tls_port())).await;
    assert!(line.contains("authority"), "{line}");
}

#[tokio::test]
async fn plain_and_tls_ports_are_not_confused() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let plain_to_tls = format!("amqp://guest:hunter2@127.0.0.1:{}/{vhost}", server.tls_port());
    let line = refusal(&plain_to_tls).await;
    assert!(line.contains("amqps://"), "{line}");
    let tls_to_plain = server.url(&vhost).replace("amqp://", "amqps://");
    let line = refusal(&tls_to_plain).await;
    assert!(line.contains("does not speak TLS [use `amqp://` if that port is a plain one, or the server's `listeners.ssl` port]"), "{line}");
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let url = server.certified_url(&vhost, server.tls());
    works(&connect(&url).await).await;
    let expression = format!(
        "length([1 || Pid <- rabbit_networking:connections(), [{{vhost, <<\"{vhost}\">>}}, {{peer_cert_subject, S}}] <- \
         [rabbit_networking:connection_info(Pid, [vhost, peer_cert_subject])], is_list(S) orelse is_binary(S)])"
    );
    // The last look at the connection came before it ended, or not at all.
    let amqp = connect(&url).await;
    assert!(server.eval(&expression).await.unwrap().as_u64() >= Some(1), "the server saw a certificate");
    drop(amqp);
}

/// Whoever shows none, or one of another authority, is told so and not something of passwords.
#[tokio::test]
async fn a_server_that_wants_certificates_gets_them() {
    let server = RabbitServer::start_for(Clients::Certified).unwrap();
    let vhost = server.fresh_vhost().await.unwrap();
    works(&connect(&server.certified_url(&vhost, server.tls())).await).await;
    let folder = tempfile::tempdir().unwrap();
    let other = Tls::make(folder.path()).unwrap();
    let none = refusal(&server.tls_url(&vhost)).await;
    let strange = refusal(&server.certified_url(&vhost, &other)).await;
    for (line, words) in [
        (none, "it wants a certificate, and we showed none (TLS alert CertificateRequired)"),
        (strange, "it does not take our certificate (TLS alert UnknownCA)"),
    ] {
        let hint = "[name one that it trusts by `ssl_certfile` and `ssl_keyfile`, or set \
                    `ssl_options.fail_if_no_peer_cert = false` there]";
        let end = format!("/{vhost} refused: {words} {hint}");
        assert!(line.starts_with("refused: amqps://***@localhost:") && line.ends_with(&end), "{line}");
    }
    // The plain port asks for nothing.
    works(&connect(&server.url(&vhost)).await).await;
}
