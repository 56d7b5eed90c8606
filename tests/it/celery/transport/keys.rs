//! What is where while a message waits, is held, comes back.

use futures_util::StreamExt as _;
use rwork_tests::python::Version::Current;
use rwork_tests::redis::{Options, RedisServer};
use rwork_tests::stage::{self, Kind, Stage};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{SEP, held, holds, queues};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_21_what_is_held_is_registered_until_it_is_acked() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let client = stage.client().await?;
    stage
        .test(async {
            let id = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            let mut redis = stage.redis().await?;
            let queued: String = redis::cmd("LINDEX").arg("celery").arg(0).query_async(&mut redis).await?;
            let queued: Value = serde_json::from_str(&queued)?;
            let worker = stage.worker("holding@test", &[]).await?;
            stage.started(&id).await;

            let all = held(&mut redis).await?;
            let [(tag, entry)] = all.as_slice() else { panic!("expected one, got {all:?}") };
            assert_eq!(entry[0], queued, "as the client wrote it");
            // A tag of this worker's own, which no other taking ever has: to kombu it is only a name for the way back.
            assert_ne!(queued["properties"]["delivery_tag"], json!(tag));
            assert_eq!((&entry[1], &entry[2]), (&json!(""), &json!("celery")));
            let scores: Vec<(String, f64)> = redis::cmd("ZRANGE")
                .arg("unacked_index")
                .arg(0)
                .arg(-1)
                .arg("WITHSCORES")
                .query_async(&mut redis)
                .await?;
            assert_eq!((scores.len(), &scores[0].0), (1, tag));
            let now: (f64, f64) = redis::cmd("TIME").query_async(&mut redis).await?;
            assert!((scores[0].1 - now.0).abs() < 60.0, "{scores:?} is not now, {now:?}");

            stage.open("go")?;
            client.get(&id).await?;
            stage.settled().await?;
            let left: u32 = redis::cmd("ZCARD").arg("unacked_index").query_async(&mut redis).await?;
            assert_eq!(left, 0);
            assert_eq!(worker.terminate().await?.code(), Some(0));
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_22_an_early_ack_comes_before_the_run() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let _worker = stage.worker("early@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let early = client.send("wire.early", json!([1, "early"]), json!({})).await?;
            stage.started(&early).await;
            stage.until(async |redis| holds(redis, 0).await).await?;
            assert_eq!(client.state(&early).await?, "PENDING", "it still runs");
            let late = client.send("wire.hold", json!([2, "late"]), json!({})).await?;
            stage.started(&late).await;
            let mut redis = stage.redis().await?;
            assert_eq!(held(&mut redis).await?.len(), 1);
            stage.open("early")?;
            stage.open("late")?;
            client.get(&early).await?;
            client.get(&late).await?;
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_26_a_warm_shutdown_gives_back_what_was_not_started() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let worker = stage.worker("leaving@test", &["-c", "1", "--max-in-flight", "1"]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let first = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            stage.started(&first).await;
            for number in [2, 3, 4] {
                client
                    .send("wire.note", json!([number]), json!({"task_id": format!("given-back-{number}")}))
                    .await?;
            }
            stage.until(async |redis| holds(redis, 4).await).await?;
            let mut redis = stage.redis().await?;
            let before = held(&mut redis).await?;

            let mut log = stage.journal.reader();
            let leaving = tokio::spawn(worker.terminate());
            log.find(|entry| entry.says("stopping: taking no more messages")).await;
            stage.open("go")?;
            assert_eq!(leaving.await??.code(), Some(0));

            let list: Vec<String> =
                redis::cmd("LRANGE").arg("celery").arg(0).arg(-1).query_async(&mut redis).await?;
            let list: Vec<Value> =
                list.iter().rev().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
            let ids: Vec<_> = list.iter().map(|envelope| envelope["headers"]["id"].clone()).collect();
            assert_eq!(ids, ["given-back-2", "given-back-3", "given-back-4"], "served in this order");
            // A shutdown knows what has not begun: nothing is marked, and the envelope is as it was.
            for envelope in &list {
                assert!(before.iter().any(|(_, was)| was[0] == *envelope), "{envelope}");
            }
            assert_eq!(client.get(&first).await?["number"], json!(1));
            assert!(held(&mut redis).await?.is_empty());
            assert_eq!(stage.log()?.len(), 2, "only the first was started");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_27_a_body_without_encoding_is_text() -> anyhow::Result<()> {
    let code = r#"
        values = []
        for encoding in (None, "utf-8", "absent"):
            body, headers = minimal("wire.add", [2, 3])
            whole = envelope(body, headers)
            whole["body"] = body
            whole["properties"]["body_encoding"] = encoding
            if encoding == "absent":
                del whole["properties"]["body_encoding"]
            inject(app, whole)
            values.append(result(app, headers["id"]).get(timeout=T))
        # Enough by kombu's rules, though a Celery worker waits for `delivery_info` in vain.
        bare = {"body": envelope(body, headers)["body"], "headers": {**headers, "id": str(uuid.uuid4())},
                "content-type": "application/json", "content-encoding": "utf-8",
                "properties": {"delivery_tag": str(uuid.uuid4()), "body_encoding": "base64"}}
        inject(app, bare)
        return values + [result(app, bare["headers"]["id"]).get(timeout=T)]
    "#;
    super::super::each(Kind::Redis, &[Current], code, json!([5, 5, 5, 5])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_28_a_prefix_is_before_every_key() -> anyhow::Result<()> {
    let server = Arc::new(RedisServer::start(Options::default())?);
    let stage = Stage::on(Arc::clone(&server))?.with_settings(json!({
        "broker_transport_options": {"global_keyprefix": "pfx:"},
        "result_backend_transport_options": {"global_keyprefix": "rp"},
    }));
    stage.configure(
        "",
        "[broker_transport_options]\nglobal_keyprefix = \"pfx:\"\n\
         [result_backend_transport_options]\nglobal_keyprefix = \"rp\"\n",
    )?;
    let monitor = redis::Client::open(stage.broker())?.get_async_monitor().await?;
    stage
        .test(async {
            let worker = stage.worker("prefixed@test", &[]).await?;
            let client = stage.client().await?;
            let code = r#"
                values = [add.delay(2, 3).get(timeout=T), retry.delay(1, 1.2).get(timeout=T)["retries"]]
                add.apply_async((2, 3), countdown=3600)
                app.send_task("wire.unknown")
                return values + [chain(add.s(1, 1), add.s(2)).delay().get(timeout=T)]
            "#;
            assert_eq!(client.eval(code).await?, json!([5, 1, 4]));
            let mut redis = stage.redis().await?;
            stage
                .until(async |redis| {
                    let dead: u32 = redis::cmd("ZCARD").arg("pfx:rwork.dead").query_async(redis).await?;
                    let parked: u32 =
                        redis::cmd("ZCARD").arg("pfx:rwork.delayed.celery").query_async(redis).await?;
                    Ok((dead, parked) == (1, 1))
                })
                .await?;
            assert_eq!(worker.terminate().await?.code(), Some(0));
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await?;
            let strange: Vec<_> = keys
                .iter()
                .filter(|key| !key.starts_with("pfx:") && !key.starts_with("rp_celery-task-meta-"))
                .collect();
            assert!(strange.is_empty(), "{strange:?}");
            let () = redis::cmd("PING").arg("that is all").query_async(&mut redis).await?;
            Ok(())
        })
        .await?;
    let mut said = monitor.into_on_message::<String>();
    let names =
        ["celery", "unacked", "_kombu.", "rwork.consumers", "rwork.held", "rwork.delayed", "rwork.parked"];
    while let Some(line) = said.next().await {
        if line.contains("\"that is all\"") {
            return Ok(());
        }
        let words: Vec<&str> = line.split(" \"").skip(1).map(|word| word.trim_end_matches('"')).collect();
        let keys = match words.as_slice() {
            // What a script does itself is told as well.
            [script, _, count, keys @ ..] if script.eq_ignore_ascii_case("evalsha") => {
                &keys[..count.parse()?]
            }
            [command, ..]
                if ["client", "script", "hello"].contains(&command.to_ascii_lowercase().as_str()) =>
            {
                &[]
            }
            [_, keys @ ..] => keys,
            [] => &[],
        };
        for (nth, key) in keys.iter().enumerate() {
            // After the key: a queue's name, or a member of a binding, which goes on with the separator.
            let value = nth > 0 && (*key == "celery" || key.starts_with("celery\\x06"));
            assert!(value || !names.iter().any(|name| key.starts_with(name)), "{key} is bare in {line}");
        }
    }
    anyhow::bail!("the server ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_29_the_default_binding_leads_to_the_worker() -> anyhow::Result<()> {
    let stage = stage::shared(Kind::Redis).await?;
    let client = stage.client().await?;
    let mut redis = stage.redis().await?;
    let bound = format!("celery{SEP}{SEP}celery");
    for key in ["_kombu.binding.celery", "_kombu.binding_permanent.celery"] {
        let members: Vec<String> = redis::cmd("SMEMBERS").arg(key).query_async(&mut redis).await?;
        assert!(members.contains(&bound), "{key}: {members:?}");
    }
    let code = r#"
        body, headers = minimal("wire.add", [2, 3])
        with app.connection_for_write() as connection:
            producer = Producer(connection, auto_declare=False)
            producer.publish(body, exchange="celery", routing_key="celery", content_type="application/json",
                             content_encoding="utf-8", headers=headers)
        return result(app, headers["id"]).get(timeout=T)
    "#;
    stage
        .test(async {
            assert_eq!(client.eval(code).await?, json!(5));
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_30_steps_and_separator_may_be_others() -> anyhow::Result<()> {
    let stage = Stage::new()?
        .with_settings(json!({"broker_transport_options": {"priority_steps": [0, 5], "sep": ":"}}));
    stage.configure("", "[broker_transport_options]\npriority_steps = [0, 5]\nsep = \":\"\n")?;
    let client = stage.client().await?;
    stage
        .test(async {
            let id = client.send("wire.add", json!([2, 3]), json!({"priority": 7})).await?;
            let mut redis = stage.redis().await?;
            let queued: u32 = redis::cmd("LLEN").arg("celery:5").query_async(&mut redis).await?;
            assert_eq!(queued, 1);
            let worker = stage.worker("stepping@test", &[]).await?;
            assert_eq!(client.get(&id).await?, json!(5));
            // What it sends and gives back itself goes there too.
            let held = client.send("wire.hold", json!([1, "go"]), json!({"priority": 7})).await?;
            stage.started(&held).await;
            worker.kill_9().await?;
            let _other = stage.worker("other@test", &[]).await?;
            stage.open("go")?;
            assert_eq!(client.get(&held).await?["redelivered"], json!(true));
            let members: Vec<String> =
                redis::cmd("SMEMBERS").arg("_kombu.binding.celery").query_async(&mut redis).await?;
            assert!(members.contains(&"celery::celery".to_owned()), "{members:?}");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_31_so_much_is_held_and_no_more() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let arguments = ["-c", "2", "--max-in-flight", "2"];
    stage.configure("worker_prefetch_multiplier = 4", "")?;
    let client = stage.client().await?;
    stage
        .test(async {
            let code = "return [hold.delay(number, 'go').id for number in range(20)]";
            let ids = client.eval(code).await?;
            let _worker = stage.worker("prefetching@test", &arguments).await?;
            stage.until(async |redis| holds(redis, 8).await).await?;
            let mut redis = stage.redis().await?;
            assert!(queues(&mut redis, 12).await?);
            stage.open("go")?;
            for id in ids.as_array().unwrap() {
                client.get(id.as_str().unwrap()).await?;
            }
            assert_eq!(stage.log()?.len(), 40);
            Ok(())
        })
        .await
}
