//! Checklist A: signed messages, made by Celery's own serializer `auth`.

use rwork_tests::celery::Client;
use rwork_tests::stage::Stage;
use serde_json::{Value, json};

use super::kinds_of_the_dead;

/// Makes a key and its certificate, valid for so many seconds, and lets `auth` sign with it. `store` is what would verify
/// at this end; nothing does.
const SIGN_AS: &str = r#"
    from celery.security.serialization import register_auth
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    named = x509.Name([x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "DE"),
                       x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    made = (x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(end - datetime.timedelta(days=1))
            .not_valid_after(end).sign(key, hashes.SHA256()))
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                               serialization.NoEncryption()).decode()
    own["signed_with"] = dict(key=secret, cert=pem)
    if seconds > 0:
        register_auth(key=secret, cert=pem, store=store, digest="sha384")
    return pem
"#;

async fn sign_as(client: &Client, name: &str, seconds: i64, store: &str) -> anyhow::Result<String> {
    let pem = client.run(SIGN_AS, json!({"name": name, "seconds": seconds, "store": store})).await?;
    Ok(pem.as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_15_what_is_signed_is_verified_and_nothing_else_is_trusted() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    stage.configure(
        "accept_content = [\"json\", \"auth\"]\nsecurity_cert_store = \"signers/*.pem\"\nsecurity_digest = \"sha384\"",
        "",
    )?;
    let client = stage.client().await?;
    let store = stage.path().join("signers");
    std::fs::create_dir(&store)?;
    let pattern = store.join("*.pem").display().to_string();
    // Celery's own end wants a store that loads, so what it trusts is written first.
    let known = sign_as(&client, "stranger", 600, &pattern).await?;
    std::fs::write(store.join("ours.pem"), sign_as(&client, "ours", 600, &pattern).await?)?;
    assert!(known.starts_with("-----BEGIN CERTIFICATE-----"), "{known}");
    let _worker = stage.worker("verifying@test", &[]).await?;
    stage
        .test(async {
            let signed = r#"return add.apply_async((2, 3), serializer="auth").get(timeout=T)"#;
            assert_eq!(client.eval(signed).await?, json!(5));

            let forged = r#"
                from celery.security.certificate import Certificate, FSCertStore
                from celery.security.key import PrivateKey
                from celery.security.serialization import SecureSerializer
                signer = lambda inner: SecureSerializer(PrivateKey(signed_with["key"]), Certificate(signed_with["cert"]),
                                                        FSCertStore(store), digest="sha384", serializer=inner)
                def send(body):
                    _, headers = minimal("wire.add", [])
                    publish(app, body, content_type="application/data", content_encoding="utf-8", headers=headers)
                    return headers["id"]
                fields = base64.b64decode(signer("json").serialize([[2, 3], {}, None]))
                changed = base64.b64encode(fields.replace(b"[2, 3]", b"[2, 4]")).decode()
                return [send(changed), send(signer("pickle").serialize([[2, 3], {}, None])), send("no base64")]
            "#;
            let ids = client.run(forged, json!({"store": pattern})).await?;
            sign_as(&client, "stranger", 600, &pattern).await?;
            let unknown = client.eval(r#"return add.apply_async((2, 3), serializer="auth").id"#).await?;
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5), "the worker goes on");

            let mut kinds = kinds_of_the_dead(&stage).await?;
            kinds.sort();
            assert_eq!(kinds, ["content-refused", "untrusted", "untrusted", "untrusted"]);
            for id in ids.as_array().into_iter().flatten().chain([&unknown]) {
                assert_eq!(client.record(id.as_str().unwrap_or_default()).await?, Value::Null);
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_15_an_expired_certificate_is_an_error_at_once() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    stage.configure("accept_content = [\"auth\"]\nsecurity_cert_store = \"signers\"", "")?;
    let client = stage.client().await?;
    let store = stage.path().join("signers");
    std::fs::create_dir(&store)?;
    let past = sign_as(&client, "past", -60, &store.display().to_string()).await?;
    std::fs::write(store.join("past.pem"), past)?;
    let error = stage.worker("refusing@test", &[]).await.map(drop).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("past.pem") && error.contains("expired"), "{error}");
    Ok(())
}
