//! What every result backend must do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use rwork_backend::{Error, ResultBackend, Store, Stored};
use rwork_protocol::{Record, State, TaskId, Timestamp};
use tokio::time::Instant;

use super::{Place, case};

/// Runs every case; `connect` gives a connection to a place that was empty when the suite began.
///
/// # Errors
/// The first case that failed, by name.
pub async fn suite(connect: impl AsyncFn(Place) -> Result<Arc<dyn ResultBackend>>) -> Result<()> {
    macro_rules! cases {
        ($($name:ident in $place:literal),* $(,)?) => {
            $(
                let place = Place::new($place);
                // Two connections, as the worker and the caller have.
                let (worker, caller) = (connect(place.clone()).await?, connect(place).await?);
                case(stringify!($name), $name(&*worker, &*caller)).await?;
            )*
        };
    }
    cases![
        records_come_back_whole in "results",
        success_is_final in "final",
        what_comes_too_late_is_not_written in "late",
        a_batch_is_stored_in_order in "result-order",
        records_expire in "expiry",
        records_are_forgotten in "forget",
        large_records_pass_and_larger_are_refused in "large-results",
        a_watch_sees_a_ready_result_at_once in "watch-ready",
        a_watch_is_woken_by_each_change in "watch-woken",
        a_watch_never_misses_the_last in "watch-last",
        many_watches_are_all_told in "watch-many",
    ];
    Ok(())
}

fn record(id: &TaskId, status: State, result: &str) -> Record {
    Record {
        task_id: id.clone(),
        date_done: status.is_ready().then(|| Timestamp::from_micros(1_795_000_000_123_456)),
        status,
        result: Bytes::copy_from_slice(result.as_bytes()),
        traceback: None,
        children: None,
        group_id: None,
        parent_id: None,
        component: None,
        extended: None,
        other: Vec::new(),
    }
}

fn store(record: Record) -> Store {
    Store { record, expires: Some(Duration::from_secs(3600)), reply_to: None, correlation_id: None }
}

async fn store_one(backend: &dyn ResultBackend, record: Record) -> Result<Stored> {
    let stored = backend.store(vec![store(record)]).await?;
    let [stored] = stored.as_slice() else { anyhow::bail!("expected one answer, got {stored:?}") };
    Ok(*stored)
}

async fn get(backend: &dyn ResultBackend, id: &TaskId) -> Result<Option<Record>> {
    let mut records = backend.get(std::slice::from_ref(id)).await?;
    ensure!(records.len() == 1, "expected one answer, got {records:?}");
    Ok(records.pop().flatten())
}

async fn records_come_back_whole(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    let ids = [
        TaskId::generate(),
        TaskId::new("f81d4fae-7dec-41d0-a765-00a0c91e6bf6")?,
        TaskId::new("F81D4FAE-7DEC-41D0-A765-00A0C91E6BF6")?,
        TaskId::new("my own id \u{1F980}")?,
        TaskId::generate(),
    ];
    let [first, second, third, fourth, missing] = &ids;
    let full = Record {
        traceback: Some("Traceback:\n  \"ü\" \u{1F980}".to_owned()),
        children: Some(Bytes::from_static(br#"[[["a",null],null]]"#)),
        group_id: Some("g".to_owned()),
        parent_id: Some("p".to_owned()),
        component: Some("sha256:00ff".to_owned()),
        ..record(first, State::Failure, r#"{"exc_type":"E","exc_message":["a",1],"exc_module":"m"}"#)
    };
    let records = [
        full,
        record(second, State::Success, r#"{"a":[1,2.5,null,"x"]}"#),
        record(third, State::Started, r#"{"pid":1}"#),
        record(fourth, State::Custom("PROGRESS".to_owned()), r#"{"done":0.5}"#),
    ];
    ensure!(worker.get(&ids).await?.iter().all(Option::is_none), "results before any were stored");
    worker.store(records.iter().cloned().map(store).collect()).await?;
    let got = caller.get(&ids).await?;
    ensure!(got.len() == ids.len(), "one answer per id");
    for (got, stored) in got.iter().zip(records.iter().map(Some).chain([None])) {
        ensure!(got.as_ref() == stored, "expected {stored:?}, got {got:?}");
    }
    ensure!(
        caller.get(&[missing.clone(), first.clone()]).await?.iter().map(Option::is_some).eq([false, true])
    );
    ensure!(worker.store(Vec::new()).await?.is_empty());
    Ok(())
}

async fn success_is_final(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    let id = TaskId::generate();
    for status in [State::Started, State::Retry, State::Failure, State::Started, State::Success] {
        ensure!(store_one(worker, record(&id, status.clone(), "null")).await? == Stored::Written, "{status}");
    }
    for status in [State::Failure, State::Started, State::Revoked, State::Success] {
        ensure!(
            store_one(caller, record(&id, status.clone(), "1")).await? == Stored::Kept,
            "{status} over SUCCESS"
        );
    }
    ensure!(get(caller, &id).await? == Some(record(&id, State::Success, "null")));
    Ok(())
}

async fn what_comes_too_late_is_not_written(
    worker: &dyn ResultBackend,
    caller: &dyn ResultBackend,
) -> Result<()> {
    let (one, other) = (TaskId::generate(), TaskId::generate());
    let batch = |first| vec![store(record(&one, first, "1")), store(record(&other, State::Success, "2"))];
    let (written, kept, late) = (Stored::Written, Stored::Kept, Stored::Late);
    let now = Instant::now();
    let stored = worker.store_before(batch(State::Failure), Some(now)).await?;
    ensure!(stored == [late, written], "got {stored:?}");
    ensure!(get(caller, &one).await?.is_none(), "what was late was written");
    ensure!(
        get(caller, &other).await? == Some(record(&other, State::Success, "2")),
        "a success is never late"
    );
    let soon = now + Duration::from_secs(3600);
    let stored = worker.store_before(batch(State::Failure), Some(soon)).await?;
    ensure!(stored == [written, kept], "got {stored:?}");
    ensure!(get(caller, &one).await? == Some(record(&one, State::Failure, "1")));
    Ok(())
}

async fn a_batch_is_stored_in_order(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    let (one, other) = (TaskId::generate(), TaskId::generate());
    let batch = vec![
        store(record(&one, State::Started, "null")),
        store(record(&other, State::Success, "2")),
        store(record(&one, State::Success, "1")),
        store(record(&other, State::Failure, "null")),
        store(record(&one, State::Retry, "null")),
    ];
    let (written, kept) = (Stored::Written, Stored::Kept);
    let stored = worker.store(batch).await?;
    ensure!(stored == [written, written, written, kept, kept], "got {stored:?}");
    ensure!(get(caller, &one).await? == Some(record(&one, State::Success, "1")));
    ensure!(get(caller, &other).await? == Some(record(&other, State::Success, "2")));
    Ok(())
}

async fn records_expire(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    let (short, long, ever) = (TaskId::generate(), TaskId::generate(), TaskId::generate());
    let keep = |id: &TaskId, expires| Store { expires, ..store(record(id, State::Success, "1")) };
    let batch = vec![
        keep(&short, Some(Duration::from_millis(50))),
        keep(&long, Some(Duration::from_secs(3600))),
        keep(&ever, None),
    ];
    worker.store(batch).await?;
    // The hang guard ends this wait when nothing expires.
    while get(caller, &short).await?.is_some() {
        tokio::task::yield_now().await;
    }
    ensure!(get(caller, &long).await?.is_some() && get(caller, &ever).await?.is_some());
    // What has expired is not final.
    ensure!(store_one(worker, record(&short, State::Failure, "null")).await? == Stored::Written);
    ensure!(get(caller, &short).await?.is_some(), "a new record took over an old expiry");
    Ok(())
}

async fn records_are_forgotten(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    let id = TaskId::generate();
    ensure!(!caller.forget(&id).await?, "forgot what was never there");
    store_one(worker, record(&id, State::Success, "1")).await?;
    ensure!(caller.forget(&id).await?, "nothing to forget");
    ensure!(get(worker, &id).await?.is_none());
    ensure!(!caller.forget(&id).await?);
    ensure!(store_one(worker, record(&id, State::Started, "null")).await? == Stored::Written);
    Ok(())
}

async fn large_records_pass_and_larger_are_refused(
    worker: &dyn ResultBackend,
    caller: &dyn ResultBackend,
) -> Result<()> {
    let id = TaskId::generate();
    let text = |size: usize| format!("\"{}\"", "x".repeat(size));
    let large = record(&id, State::Success, &text(worker.record_bytes_max().min(16 << 20) - 1024));
    ensure!(store_one(worker, large.clone()).await? == Stored::Written);
    ensure!(get(caller, &id).await? == Some(large), "a large record changed");
    if worker.record_bytes_max() < 1 << 30 {
        let larger = record(&id, State::Success, &text(worker.record_bytes_max() + 1));
        let refusal = worker.store(vec![store(larger)]).await;
        ensure!(matches!(refusal, Err(Error::TooLarge { .. })), "expected a refusal, got {refusal:?}");
    }
    Ok(())
}

async fn a_watch_sees_a_ready_result_at_once(
    worker: &dyn ResultBackend,
    caller: &dyn ResultBackend,
) -> Result<()> {
    let id = TaskId::generate();
    let done = record(&id, State::Success, "4");
    store_one(worker, done.clone()).await?;
    let mut watch = caller.watch(&id).await?;
    ensure!(watch.next().await.transpose()? == Some(done));
    ensure!(watch.next().await.is_none(), "a watch goes on after a ready state");
    Ok(())
}

async fn a_watch_is_woken_by_each_change(
    worker: &dyn ResultBackend,
    caller: &dyn ResultBackend,
) -> Result<()> {
    let id = TaskId::generate();
    let mut watch = caller.watch(&id).await?;
    for status in [State::Started, State::Custom("PROGRESS".to_owned()), State::Retry, State::Revoked] {
        let change = record(&id, status, "null");
        let (seen, stored) = tokio::join!(watch.next(), store_one(worker, change.clone()));
        ensure!(stored? == Stored::Written);
        ensure!(seen.transpose()? == Some(change));
    }
    ensure!(watch.next().await.is_none(), "a watch goes on after a ready state");
    Ok(())
}

async fn a_watch_never_misses_the_last(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    let id = TaskId::generate();
    let watch = caller.watch(&id).await?;
    for step in 0..100 {
        store_one(worker, record(&id, State::Custom("PROGRESS".to_owned()), &step.to_string())).await?;
    }
    store_one(worker, record(&id, State::Failure, "null")).await?;
    // Read late: steps between may be missing, the end may not.
    let seen: Vec<_> = watch.collect().await;
    let last = seen.into_iter().next_back().transpose()?;
    ensure!(last == Some(record(&id, State::Failure, "null")), "the last was {last:?}");
    Ok(())
}

async fn many_watches_are_all_told(worker: &dyn ResultBackend, caller: &dyn ResultBackend) -> Result<()> {
    const COUNT: usize = 200;
    let ids: Vec<_> = (0..COUNT).map(|_| TaskId::generate()).collect();
    let mut watches = Vec::new();
    for id in &ids {
        // Each twice: one watch must not take another's news.
        watches.push(caller.watch(id).await?);
        watches.push(caller.watch(id).await?);
    }
    for some in ids.chunks(30) {
        let batch = some.iter().map(|id| store(record(id, State::Success, "1"))).collect();
        worker.store(batch).await?;
    }
    for (index, watch) in watches.iter_mut().enumerate() {
        let told = watch.next().await.transpose()?.map(|record| record.task_id);
        ensure!(told.as_ref() == ids.get(index / 2), "watch {index} was told of {told:?}");
    }
    Ok(())
}
