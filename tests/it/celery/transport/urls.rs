//! How the server is found: TLS, unix sockets, sentinels, users.

use std::sync::Arc;

use rwork_tests::binary::rwork_in;
use rwork_tests::redis::{MASTER_NAME, Options, RedisServer, Sentinel};
use rwork_tests::stage::Stage;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_32_a_backend_says_how_its_certificate_is_checked() -> anyhow::Result<()> {
    let server = Arc::new(RedisServer::start(Options { tls: true, ..Options::default() })?);
    let bare = format!("rediss://localhost:{}/0", server.port());
    let stage = Stage::at(Arc::clone(&server), server.url(0), server.url(0))?;
    stage
        .test(async {
            // A backend without options is an error, as Celery's is; a broker without them is not verified, and says so.
            let mut command = rwork_in(stage.path());
            command.args(["run", "--broker", &bare, "--backend", &bare, "--drain"]);
            let output = tokio::process::Command::from(command).output().await?;
            let stderr = String::from_utf8(output.stderr)?;
            assert!(!output.status.success(), "{stderr}");
            assert!(stderr.contains("ssl_cert_reqs"), "{stderr}");

            let worker = stage.worker("secure@test", &[]).await?;
            let client = stage.client().await?;
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5));
            assert_eq!(worker.terminate().await?.code(), Some(0));
            Ok(())
        })
        .await?;
    let unverified = Stage::at(Arc::clone(&server), bare, server.url(0))?;
    unverified
        .test(async {
            let _worker = unverified.worker("unverified@test", &[]).await?;
            let warned = "the server's certificate is not verified: add `ssl_cert_reqs=required` to the URL";
            unverified.journal.reader().find(|entry| entry.says(warned)).await;
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_32_a_sentinel_leads_to_the_master() -> anyhow::Result<()> {
    let master = Arc::new(RedisServer::start(Options::default())?);
    let sentinel = Sentinel::start(&master)?;
    let options = json!({"master_name": MASTER_NAME});
    let stage = Stage::at(master, sentinel.url(0), sentinel.url(0))?.with_settings(json!({
        "broker_transport_options": options, "result_backend_transport_options": options,
    }));
    let table = format!("transport_options]\nmaster_name = \"{MASTER_NAME}\"\n");
    stage.configure("", &format!("[broker_{table}[result_backend_{table}"))?;
    stage
        .test(async {
            let _worker = stage.worker("led@test", &[]).await?;
            let client = stage.client().await?;
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5));
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_and_a_password_will_do() -> anyhow::Result<()> {
    let options =
        Options { password: Some("p%40ss/word".replace("%40", "@").replace('/', "-")), ..Options::default() };
    let server = Arc::new(RedisServer::start(options)?);
    // Celery's client takes the address as it is; `@` in it would end the user's part.
    let url = |url: String| url.replace("p@ss", "p%40ss");
    let stage = Stage::at(Arc::clone(&server), url(server.unix_url(3)), url(server.url(3)))?;
    stage
        .test(async {
            let _worker = stage.worker("socket@test", &[]).await?;
            let sender = Stage::at(Arc::clone(&server), url(server.url(3)), url(server.url(3)))?;
            let client = sender.client().await?;
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5));
            Ok(())
        })
        .await
}
