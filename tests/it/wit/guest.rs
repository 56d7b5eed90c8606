//! The plugin that was compiled against 0.1.0, run by today's worker: every import, every ending, the cleanup hook.

use rwork_protocol::{Record, State};
use rwork_sandbox::{Grants, TaskPattern};
use rwork_tests::rig::{CallOptions, NODE, Rig, Setup, log, message};
use serde_json::{Value, json};
use tracing::Level;

async fn rig() -> Rig {
    let wasm = std::fs::read(super::released().join("guest.wasm")).unwrap();
    let submit = vec![TaskPattern::new("math.*").unwrap()];
    let setup = Setup::new(&["math"]).file("frozen.wasm", wasm);
    let rig = setup.grants("frozen", Grants { submit, ..Grants::default() }).start().await;
    assert_eq!(rig.refused().iter().map(|(name, error)| (name, error.chain())).collect::<Vec<_>>(), []);
    rig
}

async fn call(rig: &Rig, task: &str) -> Record {
    rig.call(task, "[]", CallOptions::default()).await
}

#[track_caller]
fn assert_value(record: &Record, value: &Value) {
    let result: Value = serde_json::from_slice(&record.result).unwrap();
    assert_eq!((&record.status, &result), (&State::Success, value));
}

#[track_caller]
fn assert_failure(record: &Record, module: &str, kind: &str, args: &Value) {
    let exception = record.exception().unwrap();
    let found: Value = serde_json::from_slice(&exception.exc_message).unwrap();
    let found = (&record.status, exception.exc_module.as_str(), exception.exc_type.as_str(), &found);
    assert_eq!(found, (&State::Failure, module, kind, args));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_loads_with_its_options() {
    let rig = rig().await;
    let report = rig.report();
    let frozen = report.loaded.iter().find(|plugin| plugin.id.as_str() == "frozen").unwrap();
    assert_eq!((frozen.sdk.as_str(), frozen.tasks.len()), ("frozen/0.1.0", 16));
    let task = |name: &str| rig.plugins().registry().lookup(name).unwrap();
    assert_eq!(task("frozen.echo").summary, "What frozen.echo does.");
    // Of the whole plugin, and of a task of its own.
    assert!(task("frozen.echo").options.track_started);
    let limits = task("frozen.limits").options.clone();
    let seconds = |limit: Option<std::time::Duration>| limit.unwrap().as_secs();
    assert_eq!((seconds(limits.soft_time_limit), seconds(limits.time_limit)), (600, 1_200));
    assert!(task("frozen.panic").options.cleanup);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_called_with_what_was_sent() {
    let rig = rig().await;
    let sent = message("frozen.echo", r#"[1, "two", null]"#, CallOptions::default())
        .kwargs(r#"{"x": [3.5]}"#.to_owned());
    let id = rig.client().send(sent, rig.queue()).await.unwrap();
    let echo = json!(["frozen.echo", id.as_str(), "application/json", [1, "two", null], {"x": [3.5]}]);
    assert_value(&rig.wait(&id).await, &echo);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_learns_of_its_request_and_its_limits() {
    let rig = rig().await;
    let record = call(&rig, "frozen.request").await;
    let (id, queue) = (record.task_id.as_str(), rig.queue());
    assert_value(
        &record,
        &json!([
            format!("root={id}"),
            "parent=None",
            "group=None/None",
            "retries=0 deliveries=1",
            format!("redelivered=false queue={queue} priority=None"),
            format!("hostname={NODE} origin=None"),
            format!("correlation=Some(\"{id}\") reply=None"),
            "eta=None expires=None",
            r#"lang=Some("\"py\"") none=None"#,
            "names=true",
        ]),
    );
    assert_value(&call(&rig, "frozen.limits").await, &json!([true, true, "nothing"]));
    let soon = CallOptions::default().soft(100);
    assert_value(&rig.call("frozen.sleep", "[]", soon).await, &json!("soft-time-limit"));
    assert_value(&rig.call("frozen.stop", "[]", soon).await, &json!([false, true, "soft-time-limit"]));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_speaks_and_reports_its_progress() {
    let rig = rig().await;
    let record = call(&rig, "frozen.log").await;
    assert_value(&record, &json!([true, true, true, true, true]));
    let line = |level: Level, name: &str| log::Line {
        level,
        source: None,
        message: format!("at Level::{name}"),
        fields: Some("key=value".to_owned()),
    };
    let expected = [
        line(Level::TRACE, "Trace"),
        line(Level::DEBUG, "Debug"),
        line(Level::INFO, "Info"),
        line(Level::WARN, "Warn"),
        line(Level::ERROR, "Error"),
    ];
    assert_eq!(log::of(record.task_id.as_str()), expected);

    let id = rig.send("frozen.progress", "[]", CallOptions::default()).await;
    assert_value(&rig.wait(&id).await, &json!("stored"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_sends_what_it_may_and_awaits_it() {
    let rig = rig().await;
    let record = call(&rig, "frozen.submit").await;
    assert_value(&record, &json!([true, 3, 7, "ValueError('as asked') of Some(\"builtins\")"]));
    let denied = "denied: `secret.task` is not in `submit` of `[plugins.frozen.grants]`";
    assert_value(&call(&rig, "frozen.denied").await, &json!(denied));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_in_every_way_there_is() {
    let rig = rig().await;
    let record = call(&rig, "frozen.fail").await;
    assert_failure(&record, "builtins", "ValueError", &json!(["no luck", 7]));
    assert_eq!(record.traceback.as_deref(), Some("a guest's own traceback"));

    let record = call(&rig, "frozen.retry").await;
    assert_failure(&record, "builtins", "ValueError", &json!(["tried and tried", 7]));

    let record = call(&rig, "frozen.reject").await;
    assert_failure(&record, "celery.exceptions", "Reject", &json!(["not for me", false]));

    assert_value(&call(&rig, "frozen.replace").await, &json!(42));

    // A host of 0.1 knows no other ending.
    let record = call(&rig, "frozen.extension").await;
    assert_eq!(record.status, State::Failure);

    let ignored = rig.send("frozen.ignore", "[]", CallOptions::default()).await;
    rig.until_idle().await;
    let record = rig.client().result(&ignored).await.unwrap();
    assert_eq!(record.map(|record| record.status), Some(State::Started));

    let dead = rig.dead_letters().await;
    assert_eq!(dead.iter().map(|dead| dead.reason.kind.as_str()).collect::<Vec<_>>(), ["rejected"]);
    let summary = rig.stop().await;
    // The retried task failed in the end, and the replacement ran in another's place.
    let counted = (summary.failed, summary.retried, summary.rejected, summary.replaced, summary.ignored);
    assert_eq!((counted, summary.succeeded), ((3, 1, 1, 1, 1), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_last_words_are_kept_and_it_tidies_up() {
    let rig = rig().await;
    let record = call(&rig, "frozen.panic").await;
    let lost = "Worker exited prematurely: panicked at src/lib.rs:1:1: out of cheese";
    assert_failure(&record, "billiard.exceptions", "WorkerLostError", &json!([lost]));
    // The hook runs after the outcome was handed over; a worker that stops waits for it.
    assert_eq!(rig.stop().await.trapped, 1);
    let said = log::of(record.task_id.as_str());
    let expected = log::Line {
        level: Level::WARN,
        source: None,
        message: "tidying up after frozen.panic".to_owned(),
        fields: Some("why=trap: panicked at src/lib.rs:1:1: out of cheese".to_owned()),
    };
    assert!(said.contains(&expected), "{said:?}");
}
