//! Every calling option of Celery's client, as its users write them.

use rwork_tests::python::Version::{Current, Old, Oldest};
use rwork_tests::stage::{Kind, Stage};
use serde_json::json;

use super::{each, on_both};

async fn arguments_are_positional_and_named(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        return [add.delay(2, 3).get(timeout=T), add.delay(2, y=3).get(timeout=T), add.delay(x=2, y=3).get(timeout=T),
                add.s(2).delay(3).get(timeout=T), app.send_task("wire.add", (2, 3)).get(timeout=T),
                app.signature("wire.add", (2,), {"y": 3}).apply_async().get(timeout=T),
                collect.delay(1, "two", k=[None]).get(timeout=T)]
    "#;
    let seven = json!([5, 5, 5, 5, 5, 5, [[1, "two"], {"k": [null]}]]);
    each(kind, &[Current, Old, Oldest], code, seven).await
}

async fn countdown_and_eta_delay(kind: Kind) -> anyhow::Result<()> {
    // Longer than a second each, so that they wait in Redis; both are in order by the time they were due at.
    let code = r#"
        eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.6)
        sent = time.time()
        second, first = add.apply_async((1, 1), eta=eta), add.apply_async((2, 2), countdown=1.2)
        values = [first.get(timeout=T), first.date_done, second.get(timeout=T), second.date_done]
        early = [name for name, done, delay in (("countdown", values[1], 1.2), ("eta", values[3], 1.6))
                 if done.timestamp() < sent + delay - 0.05]
        return [values[0], values[2], early]
    "#;
    each(kind, &[Current], code, json!([4, 2, []])).await
}

async fn task_id_headers_priority_and_limits_reach_the_task(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        mine = "my-own-id-" + str(uuid.uuid4())
        sent = request.apply_async(task_id=mine, headers={"x-trace": "abc", "n": 1}, priority=4, time_limit=30,
                                   soft_time_limit=20, expires=600, retry=True,
                                   retry_policy={"max_retries": 3, "interval_start": 0.1}, ignore_result=False)
        seen = sent.get(timeout=T)
        return [sent.id == mine, seen["id"] == mine, seen["root_id"] == mine, seen["parent_id"], seen["queue"],
                seen["priority"], seen["correlation_id"] == mine, bool(seen["reply_to"]), seen["timelimit"],
                seen["headers"]["x-trace"], seen["headers"]["n"], seen["retries"], seen["redelivered"]]
    "#;
    let expected = json!([true, true, true, null, "celery", 4, true, true, [30, 20], "abc", 1, 0, false]);
    each(kind, &[Current, Old, Oldest], code, expected).await
}

async fn every_serializer_and_every_compression_together(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        text = ["\u00fc\U0001f600" * 500, 1, 1.5, None, True, {"k": [-1]}]
        return [[serializer, compression] for serializer in ("json", "msgpack", "yaml")
                for compression in (None, "zlib", "bzip2", "lzma", "brotli", "zstd")
                if echo.apply_async((text,), serializer=serializer, compression=compression).get(timeout=T) != text]
    "#;
    each(kind, &[Current], code, json!([])).await?;
    let code = r#"
        text = ["\u00fc" * 500, {"k": [-1]}]
        return [[serializer, compression] for serializer in ("json", "msgpack", "yaml")
                for compression in (None, "zlib", "bzip2")
                if echo.apply_async((text,), serializer=serializer, compression=compression).get(timeout=T) != text]
    "#;
    each(kind, &[Old, Oldest], code, json!([])).await
}

async fn link_runs_on_success_and_link_error_on_failure(kind: Kind) -> anyhow::Result<()> {
    let code = r#"
        linked, failed = str(uuid.uuid4()), str(uuid.uuid4())
        good = add.apply_async((2, 3), link=collect.s("more").set(task_id=linked), link_error=handled.s())
        values = [good.get(timeout=T), result(app, linked).get(timeout=T)]
        bad = fail.apply_async(("ValueError", "builtins", ["no"]), link=collect.s("never"),
                               link_error=handled.s().set(task_id=failed))
        return values + [result(app, failed).get(timeout=T) == bad.id]
    "#;
    each(kind, &[Current, Old, Oldest], code, json!([5, [[5, "more"], {}], true])).await
}

async fn ignore_result_stores_nothing(kind: Kind) -> anyhow::Result<()> {
    // The second is served after the first, by one worker with one slot.
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("ignoring@test", &["-c", "1"]).await?;
    let client = stage.client().await?;
    let code = r#"
        ignored = add.apply_async((2, 3), ignore_result=True)
        value = add.delay(2, 3).get(timeout=T)
        return [value, record(app, ignored.id), ignored.state]
    "#;
    stage
        .test(async {
            assert_eq!(client.eval(code).await?, json!([5, null, "PENDING"]));
            stage.settled().await?;
            Ok(())
        })
        .await
}

async fn queue_is_where_it_runs(kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::of(kind).await?;
    let _worker = stage.worker("mailing@test", &["-Q", "mail,reports"]).await?;
    let client = stage.client().await?;
    let code = r#"
        return [request.apply_async(queue=queue).get(timeout=T)["queue"] for queue in ("mail", "reports")]
    "#;
    stage
        .test(async {
            assert_eq!(client.eval(code).await?, json!(["mail", "reports"]));
            Ok(())
        })
        .await
}

on_both![
    arguments_are_positional_and_named,
    countdown_and_eta_delay,
    task_id_headers_priority_and_limits_reach_the_task,
    every_serializer_and_every_compression_together,
    link_runs_on_success_and_link_error_on_failure,
    ignore_result_stores_nothing,
    queue_is_where_it_runs,
];
