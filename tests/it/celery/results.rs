//! Checklist D: result records as Celery's clients read them.

use futures_util::StreamExt as _;
use rwork_tests::python::Version::{self, Current, Old, Oldest};
use rwork_tests::stage::{self, Kind, Stage};
use serde_json::{Value, json};

use super::{client, each, on_both};

async fn item_40_a_record_has_its_fields_its_time_and_its_publication(kind: Kind) -> anyhow::Result<()> {
    for version in [Current, Old] {
        let stage = stage::shared(kind).await?;
        let client = stage.client_of(version).await?;
        stage.test(one_record(stage, &client)).await?;
    }
    Ok(())
}

async fn one_record(stage: &Stage, client: &rwork_tests::celery::Client) -> anyhow::Result<()> {
    let id = format!("watched-{}-{}", client.version().number(), fastrand::u64(..));
    let key = format!("celery-task-meta-{id}");
    let server = redis::Client::open(stage.backend())?;
    let mut pushes = server.get_async_pubsub().await?;
    pushes.subscribe(&key).await?;
    client.send("wire.add", json!([2, 3]), json!({"task_id": id})).await?;
    let pushed: String = pushes.into_on_message().next().await.unwrap().get_payload()?;

    let mut redis = stage.redis().await?;
    let (stored, seconds): (String, i64) = redis::pipe().get(&key).ttl(&key).query_async(&mut redis).await?;
    assert_eq!(stored, pushed, "the publication is the record");
    assert!((86_000..=86_400).contains(&seconds), "it is kept for {seconds} s");
    let record: serde_json::Map<String, Value> = serde_json::from_str(&stored)?;
    let mut fields: Vec<_> = record.keys().map(String::as_str).collect();
    fields.sort_unstable();
    // Celery's six, and which component made it.
    assert_eq!(fields, ["children", "component", "date_done", "result", "status", "task_id", "traceback"]);
    assert_eq!(record["task_id"], json!(id));
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!(5)));
    assert_eq!((&record["traceback"], &record["children"]), (&Value::Null, &json!([])));
    let code =
        "return [result(app, id).get(timeout=T), result(app, id).date_done.utcoffset().total_seconds()]";
    assert_eq!(client.run(code, json!({"id": id})).await?, json!([5, 0.0]));
    Ok(())
}

async fn item_41_a_client_that_waits_is_woken(kind: Kind) -> anyhow::Result<()> {
    // It reads the record once and then only listens: without the publication it would never return.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("waking@test", &[]).await?;
    let (client, waiting) = (stage.client().await?, stage.client().await?);
    stage
        .test(async {
            let id = client.send("wire.hold", json!([1, "go"]), json!({})).await?;
            let channel = format!("celery-task-meta-{id}");
            let woken = tokio::spawn({
                let id = id.clone();
                async move { waiting.get(&id).await }
            });
            stage.started(&id).await;
            let mut redis = stage.redis().await?;
            // Nothing tells when somebody subscribes; each look is a round trip.
            loop {
                let listening: (String, u32) =
                    redis::cmd("PUBSUB").arg("NUMSUB").arg(&channel).query_async(&mut redis).await?;
                if listening.1 == 1 {
                    break;
                }
            }
            stage.open("go")?;
            assert_eq!(woken.await??["number"], json!(1));
            Ok(())
        })
        .await
}

async fn item_42_a_success_is_final(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("final@test", &[]).await?;
    let client = stage.client().await?;
    let code = r#"
        first = add.delay(2, 3)
        first.get(timeout=T)
        fail.apply_async(("ValueError", "builtins", ["late"]), task_id=first.id)
        add.apply_async((7, 8), task_id=first.id, expires=-1)
        return first.id
    "#;
    stage
        .test(async {
            let id = client.eval(code).await?;
            stage.settled().await?;
            let record = client.record(id.as_str().unwrap()).await?;
            assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!(5)));
            Ok(())
        })
        .await
}

async fn item_43_ignored_results_are_not_stored(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("quiet@test", &[]).await?;
    let client = stage.client().await?;
    let code = r#"
        sent = [quiet.delay(False), quiet.delay(True), quiet_errors.delay(), add.apply_async((2, 3), ignore_result=True),
                fail.apply_async(("ValueError", "builtins", ["no"]), ignore_result=True),
                quiet.apply_async((False,), ignore_result=False)]
        return [one.id for one in sent]
    "#;
    stage
        .test(async {
            let ids = client.eval(code).await?;
            stage.settled().await?;
            let mut found = Vec::new();
            for id in ids.as_array().unwrap() {
                found.push(client.record(id.as_str().unwrap()).await?["status"].clone());
            }
            assert_eq!(
                found,
                [json!(null), json!(null), json!("FAILURE"), json!(null), json!(null), json!("SUCCESS")]
            );
            Ok(())
        })
        .await
}

async fn item_44_an_extended_record_says_what_ran_where(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    stage.configure("result_extended = true", "")?;
    let _worker = stage.worker("extended@test", &[]).await?;
    let code = r#"
        sent = add.apply_async((2,), {"y": 3})
        sent.get(timeout=T)
        return [sent.name, sent.args, sent.kwargs, sent.worker, sent.retries, sent.queue]
    "#;
    for version in [Current, Old] {
        let client = stage.client_with(version, json!({"result_extended": true})).await?;
        let found = stage.test(async { Ok(client.eval(code).await?) }).await?;
        assert_eq!(found, json!(["wire.add", [2], {"y": 3}, "extended@test", 0, "celery"]));
    }
    Ok(())
}

async fn item_45_an_unknown_class_is_made_by_the_client(kind: Kind) -> anyhow::Result<()> {
    for version in Version::ALL {
        let client = client(kind, version).await?;
        let test = async {
            let id =
                client.send("wire.fail", json!(["OddError", "rwork.errors", ["bad", 7]]), json!({})).await?;
            let raised = client.get(&id).await.unwrap_err();
            assert_eq!(raised.class(), "celery.exceptions.OddError", "{raised}");
            assert_eq!(raised.args, json!(["bad", 7]));
            assert_eq!(raised.bases.first().map(String::as_str), Some("builtins.Exception"));
            let traceback = client.run("return result(app, id).traceback", json!({"id": id})).await?;
            assert!(traceback.as_str().is_some_and(|text| text.contains("OddError")), "{traceback}");
            assert_eq!(client.state(&id).await?, "FAILURE");
            Ok(())
        };
        stage::shared(kind).await?.test(test).await?;
    }
    Ok(())
}

async fn item_46_a_known_class_is_raised_with_its_arguments(kind: Kind) -> anyhow::Result<()> {
    for version in [Current, Old, Oldest] {
        let client = client(kind, version).await?;
        let test = async {
            for (class, module, args) in [
                ("KnownError", "app", json!(["no", 7])),
                ("ValueError", "builtins", json!(["a", null, {"k": [1.5]}])),
                ("KeyError", "builtins", json!(["k"])),
            ] {
                let raised = client.call("wire.fail", json!([class, module, args])).await.unwrap_err();
                assert_eq!(raised.class(), format!("{module}.{class}"), "{raised}");
                assert_eq!(raised.args, args);
            }
            Ok(())
        };
        stage::shared(kind).await?.test(test).await?;
    }
    Ok(())
}

async fn item_47_progress_is_seen(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("progress@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let args = json!(["PROGRESS", {"current": 3, "total": 10}, "go"]);
            let id = client.send("wire.progress", args, json!({})).await?;
            let key = format!("celery-task-meta-{id}");
            stage.until(async |redis| Ok(redis::cmd("EXISTS").arg(&key).query_async(redis).await?)).await?;
            let code = "return [result(app, id).state, result(app, id).info, result(app, id).ready()]";
            let seen = client.run(code, json!({"id": id})).await?;
            assert_eq!(seen, json!(["PROGRESS", {"current": 3, "total": 10}, false]));
            stage.open("go")?;
            assert_eq!(client.get(&id).await?, json!("done"));
            Ok(())
        })
        .await
}

async fn item_48_a_tracked_task_says_where_it_runs(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let worker = stage.worker("tracked@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let id = client.send("wire.tracked", json!(["go"]), json!({})).await?;
            let key = format!("celery-task-meta-{id}");
            stage.until(async |redis| Ok(redis::cmd("EXISTS").arg(&key).query_async(redis).await?)).await?;
            let code = "return [result(app, id).state, result(app, id).info]";
            let seen = client.run(code, json!({"id": id})).await?;
            let pid = worker.pid()?.as_raw_nonzero().get();
            assert_eq!(seen, json!(["STARTED", {"pid": pid, "hostname": "tracked@test"}]));
            stage.open("go")?;
            assert_eq!(client.get(&id).await?, json!("done"));
            Ok(())
        })
        .await
}

async fn item_51_children_are_the_links_and_the_next_of_the_chain(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        linked = str(uuid.uuid4())
        first = add.s(1, 1)
        first.link(collect.s().set(task_id=linked))
        last = chain(first, add.s(2)).delay()
        value = last.get(timeout=T)
        result(app, linked).get(timeout=T)
        children = sorted(child.id for child in result(app, last.parent.id).children)
        return [value, children == sorted([linked, last.id])]
    "#;
    each(kind, &[Current, Old], code, json!([4, true])).await
}

async fn a_forgotten_result_is_gone_and_waiting_has_its_limit(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        sent = add.delay(2, 3)
        states = [sent.get(timeout=T), sent.ready(), sent.successful(), sent.failed()]
        sent.forget()
        nobody = result(app, str(uuid.uuid4()))
        return states + [record(app, sent.id), nobody.state, nobody.ready()]
    "#;
    each(kind, &[Current, Old, Oldest], code, json!([5, true, true, false, null, "PENDING", false])).await
}

on_both![
    item_40_a_record_has_its_fields_its_time_and_its_publication,
    item_41_a_client_that_waits_is_woken,
    item_42_a_success_is_final,
    item_43_ignored_results_are_not_stored,
    item_44_an_extended_record_says_what_ran_where,
    item_45_an_unknown_class_is_made_by_the_client,
    item_46_a_known_class_is_raised_with_its_arguments,
    item_47_progress_is_seen,
    item_48_a_tracked_task_says_where_it_runs,
    item_51_children_are_the_links_and_the_next_of_the_chain,
    a_forgotten_result_is_gone_and_waiting_has_its_limit,
];
