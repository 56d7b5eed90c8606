//! Checklist A: the forms that a message may have.

use rwork_tests::python::Version::{Current, Old, Oldest};
use rwork_tests::stage::{self, Kind, Stage};
use serde_json::{Value, json};

use super::{client, each, kinds_of_the_dead, on_both};

async fn item_01_a_message_with_task_and_id_alone_runs(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        body, headers = minimal("wire.add", [2, 3])
        publish(app, body, headers=headers)
        value = result(app, headers["id"]).get(timeout=T)
        return [value, record(app, headers["id"])["status"]]
    "#;
    each(kind, &[Current, Old, Oldest], code, json!([5, "SUCCESS"])).await
}

async fn item_02_an_embed_of_nothing_has_three_forms(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        values = []
        for embed in (None, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}):
            _, headers = minimal("wire.add", [])
            publish(app, json.dumps([[2, 3], {}, embed]), headers=headers)
            values.append(result(app, headers["id"]).get(timeout=T))
        return values
    "#;
    each(kind, &[Current], code, json!([5, 5, 5])).await
}

async fn item_03_a_v1_message_runs_and_so_do_its_callbacks(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        callback = str(uuid.uuid4())
        sent = add.apply_async((2, 3), link=collect.s("linked").set(task_id=callback))
        return [sent.get(timeout=T), result(app, callback).get(timeout=T)]
    "#;
    for version in [Current, Old, Oldest] {
        let stage = stage::shared(kind).await?;
        let client = stage.client_with(version, json!({"task_protocol": 1})).await?;
        let values = stage.test(async { Ok(client.eval(code).await?) }).await?;
        assert_eq!(values, json!([5, [[5, "linked"], {}]]), "with Celery {}", version.number());
    }
    Ok(())
}

async fn item_04_a_v1_body_under_v2_headers_runs(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        _, headers = minimal("wire.add", [])
        publish(app, json.dumps({"args": [2], "kwargs": {"y": 3}}), headers=headers)
        return result(app, headers["id"]).get(timeout=T)
    "#;
    each(kind, &[Current], code, json!(5)).await
}

/// Sends something that can't be a task and then one that can, to a worker of its own; returns the record of the first,
/// and what kinds of dead letters there are. Celery rejects or acks such messages, which on Redis loses them.
async fn refused(kind: Kind, settings: &str, code: &str) -> anyhow::Result<(Value, Vec<String>)> {
    let stage = Stage::of(kind).await?;
    stage.configure(settings, "")?;
    let worker = stage.worker("refusing@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let id = client.eval(code).await?;
            assert_eq!(client.call("wire.add", json!([2, 3])).await?, json!(5), "the worker goes on");
            let kinds = kinds_of_the_dead(&stage).await?;
            let record = client.record(id.as_str().unwrap_or("nobody")).await?;
            assert_eq!(worker.terminate().await?.code(), Some(0));
            Ok((record, kinds))
        })
        .await
}

async fn item_05_a_message_that_is_no_task_is_kept_aside(kind: Kind) -> anyhow::Result<()> {
    let code = r#"publish(app, '{"hello": "world"}')"#;
    assert_eq!(refused(kind, "", code).await?, (Value::Null, vec!["unknown-message".to_owned()]));
    Ok(())
}

async fn item_06_a_message_without_id_is_met_once(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        body, headers = minimal("wire.add", [2, 3])
        del headers["id"]
        publish(app, body, headers=headers)
    "#;
    assert_eq!(refused(kind, "", code).await?, (Value::Null, vec!["invalid-header".to_owned()]));
    Ok(())
}

async fn item_07_an_unknown_task_fails_and_is_kept_aside(kind: Kind) -> anyhow::Result<()> {
    // The event `task-failed` comes with the events.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("unknowing@test", &[]).await?;
    let client = stage.client().await?;
    stage
        .test(async {
            let raised = client.call("wire.unknown", json!([1])).await.unwrap_err();
            assert_eq!(raised.class(), "celery.exceptions.NotRegistered", "{raised}");
            assert_eq!(raised.args, json!(["wire.unknown"]));
            assert_eq!(kinds_of_the_dead(&stage).await?, ["unknown-task"]);
            Ok(())
        })
        .await
}

async fn item_08_a_pickle_is_never_read(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        import pickle
        _, headers = minimal("wire.add", [])
        publish(app, pickle.dumps([[2, 3], {}, {}]), content_type="application/x-python-serialize",
                content_encoding="binary", headers=headers)
        return headers["id"]
    "#;
    assert_eq!(refused(kind, "", code).await?, (Value::Null, vec!["content-refused".to_owned()]));
    Ok(())
}

async fn item_09_a_body_that_is_not_json_is_kept_aside(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        _, headers = minimal("wire.add", [])
        publish(app, "[[2, 3], {}, ", headers=headers)
        return headers["id"]
    "#;
    assert_eq!(refused(kind, "", code).await?, (Value::Null, vec!["undecodable".to_owned()]));
    Ok(())
}

async fn item_10_typed_values_come_back_as_they_went(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        utc = datetime.timezone.utc
        east = datetime.timezone(datetime.timedelta(hours=2))
        values = [
            datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=utc), datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=east),
            datetime.datetime(2026, 1, 2, 3, 4), datetime.date(2026, 1, 2), datetime.time(3, 4), datetime.time(3, 4, 5, 6),
            decimal.Decimal("1.50"), decimal.Decimal("-0"), uuid.UUID(int=5), b"abc", "\u00fc".encode(), b"\xff\x00", b"",
        ]
        values.append([list(values), {"deep": {"er": list(values)}}])
        wrong = []
        for value in values:
            found = echo.delay(value).get(timeout=T)
            if found != value or type(found) is not type(value):
                wrong.append([repr(value), repr(found)])
        return wrong
    "#;
    each(kind, &[Current, Old], code, json!([])).await
}

async fn item_11_three_keys_are_no_typed_value(kind: Kind) -> anyhow::Result<()> {
    let code =
        r#"return echo.delay({"__type__": "date", "__value__": "2026-01-02", "more": 1}).get(timeout=T)"#;
    let object = json!({"__type__": "date", "__value__": "2026-01-02", "more": 1});
    each(kind, &[Current], code, object).await
}

async fn item_12_numbers_that_json_does_not_have(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        sent = [float("nan"), float("inf"), -float("inf"), 2**70, -2**63, 0.1, 1e300, 5e-324, -0.0]
        found = echo.delay(sent).get(timeout=T)
        return [repr(found) == repr(sent), repr(found)][not repr(found) == repr(sent):]
    "#;
    let client = client(kind, Current).await?;
    let found = stage::shared(kind).await?.test(async { Ok(client.eval(code).await?) }).await?;
    assert_eq!(found[0], json!(true), "{found}");
    Ok(())
}

async fn item_13_compressed_bodies_are_read(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        text = "x" * 5000
        return [echo.apply_async((text,), compression=name).get(timeout=T) == text
                for name in ("gzip", "zlib", "bzip2", "zstd")]
    "#;
    each(kind, &[Current], code, json!([true, true, true, true])).await
}

async fn item_14_msgpack_is_taken_where_it_is_accepted(kind: Kind) -> anyhow::Result<()> {
    let code = r#"return echo.apply_async((["\u00fc", 1.5, None, {"a": -1}],), serializer="msgpack").get(timeout=T)"#;
    each(kind, &[Current], code, json!(["ü", 1.5, null, {"a": -1}])).await?;
    let code = r#"return add.apply_async((2, 3), serializer="msgpack").id"#;
    assert_eq!(refused(kind, "", code).await?, (Value::Null, vec!["content-refused".to_owned()]));
    Ok(())
}

async fn item_16_a_shadow_is_not_what_runs(kind: Kind) -> anyhow::Result<()> {
    // Where the shadow is shown, in events and in inspect, comes with those.
    let code = r#"return request.apply_async(shadow="shadowed").get(timeout=T)["task"]"#;
    each(kind, &[Current, Old], code, json!("wire.request")).await
}

async fn item_17_custom_headers_survive_a_retry_and_those_of_rabbitmq_do_not(
    kind: Kind,
) -> anyhow::Result<()> {
    let code = r#"
        headers = {"x-trace": "abc", "x-death": [{"count": 1}], "x-first-death-queue": "q"}
        return retry.apply_async((1, 0.01), headers=headers).get(timeout=T)
    "#;
    each(kind, &[Current], code, json!({"retries": 1, "x-trace": "abc", "x-death": false})).await
}

async fn item_18_an_eta_without_offset_is_utc(kind: Kind) -> anyhow::Result<()> {
    // Where it is parked says to which instant it was taken: hours ahead, so that nothing depends on when this runs.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("waiting@test", &[]).await?;
    let client = stage.client().await?;
    let code = r#"
        due = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(hours=4)
        east = due.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
        for text in (due.replace(tzinfo=None).isoformat(), east.isoformat(), due.isoformat().replace("+00:00", "Z")):
            body, headers = minimal("wire.add", [2, 3], eta=text)
            publish(app, body, headers=headers)
        return int(due.timestamp() * 1000)
    "#;
    stage
        .test(async {
            let due = client.eval(code).await?.as_f64().unwrap();
            match kind {
                Kind::Redis => parked_in_redis(&stage, due).await,
                // 4 h are between 2^13 and 2^14 seconds; two hours less or more are not.
                _ => stage.rabbit()?.until_queue("celery_delayed_13", |queue| queue.ready == 3).await,
            }
        })
        .await
}

async fn parked_in_redis(stage: &Stage, due: f64) -> anyhow::Result<()> {
    let key = "rwork.delayed.celery";
    stage.until(async |redis| Ok(redis::cmd("ZCARD").arg(key).query_async::<u32>(redis).await? == 3)).await?;
    let mut redis = stage.redis().await?;
    let mut parked = redis::cmd("ZRANGE");
    let parked: Vec<(String, f64)> =
        parked.arg(key).arg(0).arg(-1).arg("WITHSCORES").query_async(&mut redis).await?;
    for (_, at) in &parked {
        // The two clocks are one machine's, read at two moments: hours apart would be a wrong zone.
        assert!((at - due).abs() < 60_000.0, "{parked:?} is not due at {due}");
    }
    Ok(())
}

async fn item_19_an_eta_in_the_past_runs_and_one_that_is_none_does_not(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        return [add.apply_async((2, 3), eta=past).get(timeout=T), add.apply_async((2, 3), countdown=-1).get(timeout=T)]
    "#;
    each(kind, &[Current], code, json!([5, 5])).await?;
    let code = r#"
        body, headers = minimal("wire.add", [2, 3], eta="xx")
        publish(app, body, headers=headers)
        return headers["id"]
    "#;
    assert_eq!(refused(kind, "", code).await?, (Value::Null, vec!["invalid-header".to_owned()]));
    Ok(())
}

async fn item_20_the_hard_time_limit_comes_first(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        sent = request.apply_async(time_limit=30, soft_time_limit=20)
        return sent.get(timeout=T)["timelimit"]
    "#;
    each(kind, &[Current, Old], code, json!([30, 20])).await
}

on_both![
    item_01_a_message_with_task_and_id_alone_runs,
    item_02_an_embed_of_nothing_has_three_forms,
    item_03_a_v1_message_runs_and_so_do_its_callbacks,
    item_04_a_v1_body_under_v2_headers_runs,
    item_05_a_message_that_is_no_task_is_kept_aside,
    item_06_a_message_without_id_is_met_once,
    item_07_an_unknown_task_fails_and_is_kept_aside,
    item_08_a_pickle_is_never_read,
    item_09_a_body_that_is_not_json_is_kept_aside,
    item_10_typed_values_come_back_as_they_went,
    item_11_three_keys_are_no_typed_value,
    item_12_numbers_that_json_does_not_have,
    item_13_compressed_bodies_are_read,
    item_14_msgpack_is_taken_where_it_is_accepted,
    item_16_a_shadow_is_not_what_runs,
    item_17_custom_headers_survive_a_retry_and_those_of_rabbitmq_do_not,
    item_18_an_eta_without_offset_is_utc,
    item_19_an_eta_in_the_past_runs_and_one_that_is_none_does_not,
    item_20_the_hard_time_limit_comes_first,
];
