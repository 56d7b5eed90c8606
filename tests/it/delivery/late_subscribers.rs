//! Clients that ask for a result while it is being stored.

use rwork_tests::process::{is_full_run, say};
use rwork_tests::redis::Options;
use serde_json::json;

use super::stage;

/// Clients side by side, each on a thread of its own.
const CLIENTS: u64 = 2;

/// Fault 13: about one in 1,000 `chain(a, b).delay().get()` of a stock Celery client waited for ever: it sends SUBSCRIBE and
/// GET on two connections, and a fast worker stores and publishes between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_subscribers_no_chain_waits_for_ever() -> anyhow::Result<()> {
    let chains: u64 = if is_full_run() { 20_000 } else { 500 };
    let (_server, stage) = stage(Options::default())?;
    stage
        .test(async {
            let _worker = stage.worker("fast@test", &[]).await?;
            let code = r#"
                from celery.exceptions import TimeoutError
                hung = 0
                for number in range(count):
                    try:
                        assert chain(add.s(number, 1), add.s(1)).delay().get(timeout=10) == number + 2
                    except TimeoutError:
                        hung += 1
                return hung
            "#;
            let client = async || -> anyhow::Result<u64> {
                let hung = stage.client().await?.run(code, json!({"count": chains / CLIENTS})).await?;
                Ok(hung.as_u64().unwrap_or_default())
            };
            let (one, other) = tokio::try_join!(client(), client())?;
            say(format_args!("{chains} chains of a stock client, {} hung", one + other));
            assert_eq!(one + other, 0, "hung of {chains}");
            Ok(())
        })
        .await
}
