//! Guests that take more time than they have, on the CPU and in the host.

use std::sync::Arc;

use rwork_protocol::{State, TaskId};
use rwork_sandbox::Grants;
use rwork_sandbox::egress::AllowList;
use rwork_tests::rig::{CallOptions, Rig, Setup};
use rwork_worker::Summary;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Counted, Ended, hard, let_loose, text, unlimited};

/// Longer than any test: only a kill ends it.
const NEVER: &str = "[86400]";

/// Calls that are to be served beside a guest that does not end.
const BESIDE: usize = 50;

fn setup() -> Setup {
    Setup::new(&["math", "hostile"])
}

fn at_hard_limit(summary: &mut Summary) {
    summary.hard_time_limit += 1;
}

fn at_soft_limit(summary: &mut Summary) {
    summary.soft_time_limit += 1;
}

#[track_caller]
fn assert_killed(ended: &Ended, seconds: &str) {
    ended.assert_exception("billiard.exceptions", "TimeLimitExceeded", &format!("[{seconds}]"));
}

#[track_caller]
fn assert_gave_up(ended: &Ended) {
    ended.assert_exception("billiard.exceptions", "SoftTimeLimitExceeded", "[]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_loop_ends_at_its_hard_limit_with_the_place_where_it_was() {
    let ended = let_loose(setup(), "hostile.spin", "[]", hard(200), at_hard_limit).await;
    assert_killed(&ended, "0.2");
    let traceback = ended.record.traceback.as_deref().unwrap_or_default();
    assert!(traceback.contains("hostile::round_and_round"), "{traceback}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_loop_that_ignores_its_soft_limit_meets_the_hard_one() {
    let ended = let_loose(setup(), "hostile.spin", "[]", hard(200).soft(50), at_hard_limit).await;
    assert_killed(&ended, "0.2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_asks_learns_of_its_soft_limit() {
    let ended =
        let_loose(setup(), "hostile.polite", "[]", CallOptions::default().soft(100), at_soft_limit).await;
    assert_gave_up(&ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleep_in_the_host_ends_at_the_hard_limit() {
    let ended = let_loose(setup(), "hostile.sleep", NEVER, hard(200).soft(50), at_hard_limit).await;
    assert_killed(&ended, "0.2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_an_answer_ends_at_the_limit_and_lets_go_of_its_connection() {
    let limits: [(CallOptions, Counted); 2] =
        [(hard(300), at_hard_limit), (hard(60_000).soft(300), at_soft_limit)];
    for (options, ending) in limits {
        let (port, connection) = silent_server().await;
        let address = format!("http://127.0.0.1:{port}");
        let http = Arc::new(AllowList::parse([&address]).unwrap());
        let setup = Setup::new(&["math", "web"]).grants("web", Grants { http, ..Grants::default() });
        let ended = let_loose(setup, "web.fetch", &format!("[\"{address}/\"]"), options, ending).await;
        match options.soft {
            None => assert_killed(&ended, "0.3"),
            Some(_) => assert_gave_up(&ended),
        }
        let request = connection.await.unwrap();
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    }
}

/// Accepts one connection, never answers, and returns what it was sent when the other side has closed.
async fn silent_server() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connection = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut request).await;
        String::from_utf8(request).unwrap()
    });
    (port, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_never_ends_takes_one_cpu_slot_and_no_more() {
    let rig = setup().task("hostile.spin", r#"{"track_started": true, "time_limit": 0}"#).start().await;
    let spinner = rig.send("hostile.spin", "[]", unlimited()).await;
    rig.wait_for(&spinner, State::Started).await;
    serve_beside(&rig).await;
    assert_eq!(rig.sandbox().metrics().in_flight, 1);

    assert_given_back(rig, &spinner).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_waits_in_the_host_takes_no_cpu_slot() {
    let rig = setup().sandbox(|sandbox| sandbox.concurrency = 1);
    let rig = rig.task("hostile.sleep", r#"{"track_started": true}"#).start().await;
    let sleeper = rig.send("hostile.sleep", NEVER, unlimited()).await;
    rig.wait_for(&sleeper, State::Started).await;
    serve_beside(&rig).await;
    assert_given_back(rig, &sleeper).await;
}

/// Only force ends it; its message goes back to the queue, since nobody knows what it would have come to.
async fn assert_given_back(rig: Rig, task: &TaskId) {
    let sandbox = rig.sandbox().clone();
    assert_eq!(rig.client().result(task).await.unwrap().unwrap().status, State::Started);
    let (summary, queue) = rig.kill().await;
    assert_eq!(summary, Summary { succeeded: BESIDE as u64, shut_down: 1, ..Summary::default() });
    assert_eq!((queue.ready, queue.unsettled, queue.dead), (1, 0, 0));
    assert_eq!(sandbox.metrics().in_flight, 0);
}

async fn serve_beside(rig: &Rig) {
    for n in 0..BESIDE {
        let record = rig.call("math.add", format!("[{n}, 1]"), unlimited()).await;
        assert_eq!((record.status, text(&record.result)), (State::Success, (n + 1).to_string().as_str()));
    }
}
