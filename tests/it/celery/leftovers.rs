//! What is left in the database when all work is done: nothing that stays for ever but what kombu itself keeps.

use redis::cmd;
use rwork_tests::process::is_full_run;
use rwork_tests::stage::Stage;
use serde_json::json;

/// What stays for ever: kombu's table of bindings, and the name of this data, by which a server that lost everything is told.
const KEPT: &[&str] = &["_kombu.binding.celery", "_kombu.binding_permanent.celery", "rwork.incarnation"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_without_expiry_is_left() -> anyhow::Result<()> {
    let tasks: u64 = if is_full_run() { 100_000 } else { 1_000 };
    let stage = Stage::new()?;
    let worker = stage.worker("tidy@test", &["-c", "2"]).await?;
    // A second one dies in the middle of it, and what it held is inherited.
    let doomed = stage.worker("doomed@test", &["-c", "1"]).await?;
    let client = stage.client().await?;
    // Of every kind: results, failures, retries, delays, progress, chains, ignored and expired ones.
    let code = r#"
        with app.producer_pool.acquire(block=True) as producer:
            for number in range(tasks // 10):
                add.apply_async((number, 1), producer=producer)
                add.apply_async((number, 1), producer=producer, priority=number % 10)
                fail.apply_async(("ValueError", "builtins", [number]), producer=producer)
                retry.apply_async((1, 0.01), producer=producer)
                add.apply_async((number, 1), countdown=1.5, producer=producer)
                quiet.apply_async((False,), producer=producer)
                add.apply_async((number, 1), expires=-1, producer=producer)
                chain(add.s(number, 1), add.s(1)).apply_async(producer=producer)
                echo.apply_async(("x" * 1000,), producer=producer, compression="zlib")
                reject.apply_async((True,), producer=producer)
    "#;
    stage
        .test(async {
            let held = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            stage.started(&held).await;
            client.run(code, json!({"tasks": tasks})).await?;
            doomed.kill_9().await?;
            stage.open("go")?;
            client.get(&held).await?;
            stage
                .until(async |redis| {
                    let mut left = redis::pipe();
                    left.llen("celery").hlen("unacked").zcard("rwork.delayed.celery");
                    for step in [3, 6, 9] {
                        left.llen(format!("celery\u{6}\u{16}{step}"));
                    }
                    let left: Vec<u64> = left.query_async(redis).await?;
                    // The dead one is forgotten when its lease is over.
                    let consumers: u64 = cmd("ZCARD").arg("rwork.consumers").query_async(redis).await?;
                    Ok((left.iter().sum::<u64>(), consumers) == (0, 1))
                })
                .await?;
            assert_eq!(worker.terminate().await?.code(), Some(0));

            let mut redis = stage.redis().await?;
            let keys: Vec<String> = cmd("KEYS").arg("*").query_async(&mut redis).await?;
            let mut left = Vec::new();
            for chunk in keys.chunks(1000) {
                let mut times = redis::pipe();
                for key in chunk {
                    times.pttl(key);
                }
                let times: Vec<i64> = times.query_async(&mut redis).await?;
                let for_ever = chunk.iter().zip(times).filter(|(_, time)| *time == -1);
                left.extend(for_ever.map(|(key, _)| key.clone()));
            }
            assert!(keys.len() > 500, "there are results: {}", keys.len());
            left.retain(|key| !KEPT.contains(&key.as_str()));
            assert_eq!(left, Vec::<String>::new(), "without expiry");
            Ok(())
        })
        .await
}
