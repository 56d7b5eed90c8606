//! What a guest reaches through its imports.

use std::time::Duration;

use rwork_protocol::State;
use rwork_sandbox::{Host, HostError, Payload};

use crate::commit::Fenced;
use crate::host::Guest;
use crate::sim::fixture::Bench;

#[tokio::test(start_paused = true)]
async fn only_states_of_the_tasks_own_are_stored() {
    let mut bench = Bench::new().await;
    let (request, _) = bench.request("ok", |_| {});
    let guest = Guest(request);
    let meta = || Payload::json(&b"{\"current\": 1}"[..]);
    for state in ["SUCCESS", "FAILURE", "RETRY", "REVOKED", "STARTED", "PENDING", "", &"X".repeat(51)] {
        let error = guest.progress(state.to_owned(), meta()).await.unwrap_err();
        assert!(matches!(error, HostError::Invalid(_)), "{state}");
    }
    let error = guest.progress("PROGRESS".to_owned(), Payload::json(&b"{"[..])).await.unwrap_err();
    assert!(matches!(error, HostError::Invalid(_)));
    let (told, ()) = tokio::join!(guest.progress("PROGRESS".to_owned(), meta()), async {
        let note = bench.inbox.recv().await.unwrap();
        assert_eq!(note.effects.records[0].record.status, State::Custom("PROGRESS".to_owned()));
        assert!(note.ending.is_none() && matches!(note.fenced, Fenced::Holds(_)));
        note.reply.unwrap().send(note.became).unwrap();
    });
    told.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stored_of_a_task_that_wants_no_result() {
    let bench = Bench::new().await;
    let (request, _) = bench.request("quiet", |_| {});
    let guest = Guest(request);
    guest.progress("PROGRESS".to_owned(), Payload::json(&b"1"[..])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_what_is_granted_is_sent() {
    let mut bench = Bench::new().await;
    let (request, _) = bench.request("ok", |_| {});
    let guest = Guest(request);
    let send = async |signature: &'static str| guest.submit(vec![Payload::json(signature.as_bytes())]).await;
    for hidden in [
        r#"{"task": "fail"}"#,
        r#"{"task": "ok", "options": {"link": [{"task": "fail"}]}}"#,
        r#"{"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [{"task": "ok"}, {"task": "fail"}]}}"#,
    ] {
        let error = send(hidden).await.unwrap_err();
        assert_eq!(
            error,
            HostError::Denied("`fail` is not in `submit` of `[plugins.model.grants]`".to_owned())
        );
    }
    for nonsense in ["1", "{}", r#"{"task": "ok", "subtask_type": "chord"}"#] {
        assert!(matches!(send(nonsense).await.unwrap_err(), HostError::Invalid(_)), "{nonsense}");
    }
    let (sent, ()) = tokio::join!(send(r#"{"task": "ok", "options": {"task_id": "child"}}"#), async {
        let step = bench.inbox.recv().await.unwrap();
        assert_eq!(step.effects.follow_ups.len(), 1);
        step.reply.unwrap().send(step.became).unwrap();
    });
    let sent = sent.unwrap();
    assert_eq!((sent[0].id.as_str(), sent[0].result_tuple.as_str()), ("child", r#"[["child", null], null]"#));
    assert_eq!(guest.sent.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_does_not_come_is_not_waited_for_for_ever() {
    let bench = Bench::new().await;
    let (request, _) = bench.request("ok", |_| {});
    let guest = Guest(request);
    // The model's stream ends when there is nothing yet.
    let error = guest.await_result("nobody".to_owned(), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, HostError::Unavailable(_)));
    let error = guest.await_result(String::new(), Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, HostError::Invalid(_)));
}
