//! A server whose memory is full, and stays so.

use redis::cmd;
use rwork_tests::redis::Options;
use serde_json::{Value, json};

use super::stage;

/// Fault 5: of 20 MB of messages 1,088 were held and no result was stored, for ever. A queue must be drainable: each
/// message that is acked makes the room that its result and its follow-up need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_drained() -> anyhow::Result<()> {
    const CHAINS: usize = 500;
    const MEMORY: &str = "20mb";
    let (server, stage) = stage(Options { memory_max: Some(MEMORY.to_owned()), ..Options::default() })?;
    stage
        .test(async {
            let client = stage.client().await?;
            let code = r#"
                text = "x" * 2000
                lasts = [chain(collect.s(text), collect.si(number)).delay() for number in range(count)]
                return [[last.parent.id, last.id] for last in lasts]
            "#;
            let ids = client.run(code, json!({"count": CHAINS})).await?;
            // What is left of the memory is filled, to the last kilobyte.
            let mut redis = server.connect(0).await?;
            let mut filled = 0;
            for size in [1 << 20, 1 << 14, 1 << 10] {
                let filler = vec![b'x'; size];
                let fill = async |redis: &mut _| {
                    cmd("RPUSH").arg("filler").arg(&filler).query_async::<u32>(redis).await
                };
                while fill(&mut redis).await.is_ok() {
                    filled += 1;
                }
            }
            assert!(filled > 0, "{MEMORY} were full of messages alone");
            let _worker = stage.worker("full@test", &[]).await?;
            stage.settled().await?;
            // One that subscribes would need memory, too: a look at each is enough now.
            for pair in ids.as_array().into_iter().flatten() {
                for id in pair.as_array().into_iter().flatten() {
                    let id = id.as_str().unwrap_or_default();
                    assert_ne!(client.record(id).await?, Value::Null, "no result of {id}");
                }
            }
            Ok(())
        })
        .await
}
