//! The same commands on a real Redis: calls and their results, what was given up, `doctor`, servers that refuse or are not
//! there.

use rustix::process::Signal;
use rwork_tests::redis::{Options, RedisServer};
use serde_json::Value;

use super::Place;
use super::brokers::{given_up, json};
use super::worker::Worker;

/// A place with the `math` plugin, and the URL of a database of its own.
fn place() -> (Place, String) {
    let url = RedisServer::shared().url(RedisServer::fresh_database());
    (super::life::with_math(), url)
}

#[test]
fn a_call_is_run_and_answered() {
    let (place, url) = place();
    let mut worker = Worker::start(&place, &["-b", &url]);
    assert_eq!(place.run(&["call", "-b", &url, "math.add", "2", "3", "--wait"]).ok(), "5");
    let failed = place.run(&["call", "-b", &url, "math.fail", "no luck", "--wait"]);
    assert_eq!((failed.status, failed.stderr.lines().next()), (1, Some("ValueError: no luck")));
    let id = place.run(&["call", "-b", &url, "math.retry", "2"]).ok();
    assert_eq!(place.run(&["result", "-b", &url, &id, "--wait"]).ok(), "2");
    place.run(&["result", "-b", &url, &id, "--forget"]).ok();
    assert_eq!(place.run(&["result", "-b", &url, &id]).status, 1);
    worker.signal(Signal::TERM);
    assert!(worker.end().success(), "{}", worker.log.join("\n"));
}

#[test]
fn queues_are_counted_and_purged() {
    let (place, url) = place();
    place.run(&["call", "-b", &url, "math.add", "1", "1"]).ok();
    place.run(&["call", "-b", &url, "math.add", "1", "1", "--countdown", "3600"]).ok();
    place.run(&["call", "-b", &url, "math.add", "1", "1", "-Q", "mail"]).ok();
    let queues = json(place.run(&["queues", "-b", &url, "--json"]));
    let counts = |queue: &Value| {
        let count = |name: &str| queue[name].as_u64().unwrap();
        (queue["name"].as_str().unwrap().to_owned(), count("ready"), count("delayed"), count("held"))
    };
    let counted: Vec<_> = queues.as_array().unwrap().iter().map(counts).collect();
    assert_eq!(counted, [("celery".to_owned(), 1, 1, 0), ("mail".to_owned(), 1, 0, 0)]);
    assert_eq!(place.run(&["purge", "-b", &url, "celery", "--yes"]).ok(), "celery: 2 deleted");
    assert_eq!(place.run(&["purge", "-b", &url, "celery", "--yes"]).ok(), "celery: 0 deleted");
}

#[test]
fn what_was_given_up_is_kept_and_sent_again() {
    let (place, url) = place();
    given_up(&place, &url);
    let result = place.run(&["result", "-b", &url, "nobody-knows-it"]);
    assert_eq!((result.status, result.stderr.lines().next()), (1, Some("NotRegistered: math.nope")));
}

/// State, finding and hint of each of `doctor`'s checks with this name.
fn findings(document: &Value, what: &str) -> Vec<(String, String, String)> {
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = document.as_array().unwrap().iter().filter(|check| check["what"] == what);
    checks.map(|check| (text(check, "state"), text(check, "found"), text(check, "hint"))).collect()
}

fn doctor(place: &Place, arguments: &[&str]) -> (i32, Value) {
    let answer = place.run(&[&["doctor", "--json"], arguments].concat());
    (answer.status, serde_json::from_str(&answer.stdout).unwrap())
}

#[test]
fn doctor_finds_a_good_server_good() {
    let server = RedisServer::start(Options { append_only: true, ..Options::default() }).unwrap();
    let place = Place::new();
    let (status, document) = doctor(&place, &["-b", &server.url(0)]);
    assert_eq!(status, 0, "{document}");
    for (what, start) in [
        ("broker", format!("redis://127.0.0.1:{}/0 is Redis ", server.port())),
        ("broker disk", "append-only file, synced at each write".to_owned()),
        ("broker latency", "a round trip takes ".to_owned()),
        ("broker clock", "0.".to_owned()),
        ("backend", format!("redis://127.0.0.1:{}/0 answers in ", server.port())),
    ] {
        let found = findings(&document, what);
        assert!(
            found.len() == 1 && found[0].0 == "ok" && found[0].1.starts_with(&start),
            "{what}: {found:?}"
        );
    }
    let memory = findings(&document, "broker memory");
    assert!(memory.iter().all(|(state, ..)| state == "ok"), "{memory:?}");
}

#[test]
fn doctor_finds_a_server_that_forgets() {
    let more = ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"].map(str::to_owned).to_vec();
    let server = RedisServer::start(Options { more, ..Options::default() }).unwrap();
    let place = Place::new();
    let (status, document) = doctor(&place, &["-b", &server.url(0)]);
    assert_eq!(status, 1, "{document}");
    let eviction = &findings(&document, "broker memory")[0];
    assert_eq!(
        (eviction.0.as_str(), eviction.1.as_str()),
        ("failed", "maxmemory-policy is `allkeys-lru`: a full server throws messages away")
    );
    assert!(eviction.2.contains("CONFIG SET maxmemory-policy noeviction"), "{eviction:?}");
    let disk = &findings(&document, "broker disk")[0];
    assert_eq!((disk.0.as_str(), disk.1.contains("loses every message")), ("warning", true), "{disk:?}");
    assert!(disk.2.contains("CONFIG SET appendonly yes"), "{disk:?}");
    // Results may be forgotten: a warning is enough. The broker beside it is a file, and well.
    let (status, document) = doctor(&place, &["--backend", &server.url(0)]);
    assert_eq!(status, 0, "{document}");
    assert_eq!(findings(&document, "broker")[0].0, "ok");
    assert_eq!(findings(&document, "backend memory")[0].0, "warning");
    // Full, or nearly so.
    let small = Options { memory_max: Some("1mb".to_owned()), ..Options::default() };
    let server = RedisServer::start(small).unwrap();
    let (_, document) = doctor(&place, &["-b", &server.url(0)]);
    let memory = findings(&document, "broker memory");
    assert!(
        memory.iter().any(|(state, _, hint)| state != "ok" && hint.contains("CONFIG SET maxmemory ")),
        "{memory:?}"
    );
}

#[test]
fn doctor_finds_a_replica_and_a_dead_server() {
    let master = RedisServer::start(Options::default()).unwrap();
    let replica =
        RedisServer::start(Options { replica_of: Some(master.port()), ..Options::default() }).unwrap();
    let place = Place::new();
    let (status, document) = doctor(&place, &["-b", &replica.url(0)]);
    let broker = &findings(&document, "broker")[0];
    assert_eq!((status, broker.0.as_str()), (1, "failed"), "{broker:?}");
    assert!(broker.2.contains("master"), "{broker:?}");
    // One is well and the other is not.
    replica.kill_9().unwrap();
    let (status, document) = doctor(&place, &["-b", &master.url(0), "--backend", &replica.url(0)]);
    let (broker, backend) = (&findings(&document, "broker")[0], &findings(&document, "backend")[0]);
    assert_eq!((status, broker.0.as_str(), backend.0.as_str()), (1, "ok", "failed"), "{document}");
    assert!(backend.1.contains("failed to open the result backend (from --backend)"), "{backend:?}");
}

#[test]
fn a_wrong_password_ends_a_worker_that_starts() {
    let server =
        RedisServer::start(Options { password: Some("right".to_owned()), ..Options::default() }).unwrap();
    let place = super::life::with_math();
    let url = format!("redis://:wrong@127.0.0.1:{}/0", server.port());
    for arguments in [["run", "-b", &url], ["queues", "-b", &url]] {
        let answer = place.run(&arguments);
        assert_eq!(answer.status, 3, "{answer:?}");
        assert!(answer.stderr.contains("WRONGPASS") && answer.stderr.contains("hint: "), "{answer:?}");
        assert!(!answer.stderr.contains(":wrong@"), "a password is shown: {answer:?}");
    }
}

#[test]
fn a_worker_waits_for_servers_that_are_not_there_yet() {
    let broker = RedisServer::start(Options::default()).unwrap();
    let backend = RedisServer::start(Options::default()).unwrap();
    let place = super::life::with_math();
    let (at, results) = (broker.url(0), backend.url(0));
    broker.kill_9().unwrap();
    backend.kill_9().unwrap();
    let urls = ["-b", at.as_str(), "--backend", results.as_str()];
    let mut worker = Worker::spawn(&place, &urls);
    let line = worker.wait_for("can't reach the broker yet");
    assert!(line.contains("connection refused") && line.contains("hint="), "{line}");
    worker.wait_for("can't reach the broker yet");
    broker.start_again().unwrap();
    worker.wait_for("can't reach the result backend yet");
    backend.start_again().unwrap();
    worker.wait_for("ready");
    let call = |arguments: &[&str]| place.run(&[&["call"], &urls[..], arguments].concat());
    assert_eq!(call(&["math.add", "2", "3", "--wait"]).ok(), "5");
    // The backend alone is away: said of it, and made up for.
    backend.kill_9().unwrap();
    let id = place.run(&[&["call"][..], &["-b", &at, "math.add", "3", "4"]].concat()).ok();
    let line = worker.wait_for("can't store results: trying again until it works");
    assert!(line.contains("service=\"result backend\""), "{line}");
    backend.start_again().unwrap();
    worker.wait_for("can store results again");
    assert_eq!(place.run(&["result", urls[0], urls[1], urls[2], urls[3], &id, "--wait"]).ok(), "7");
    // Somebody who wants an answer at once has it.
    broker.kill_9().unwrap();
    let answer = place.run(&["run", "-b", &at, "--drain"]);
    assert_eq!(answer.status, 3, "{answer:?}");
    let mut impatient = place.command(&["run", "-b", &at]);
    impatient.env("RWORK_BROKER_CONNECTION_RETRY_ON_STARTUP", "false");
    assert_eq!(impatient.output().unwrap().status.code(), Some(3));
}

#[tokio::test]
async fn a_worker_gets_over_a_changed_password() {
    let server =
        RedisServer::start(Options { password: Some("old".to_owned()), ..Options::default() }).unwrap();
    let place = super::life::with_math();
    let url = server.url(0);
    let mut admin = server.connect(0).await.unwrap();
    let mut worker = Worker::start(&place, &["-b", &url]);
    let mut tell = async |words: &[&str]| {
        redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut admin).await.unwrap();
    };
    tell(&["CONFIG", "SET", "requirepass", "new"]).await;
    tell(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    worker.wait_for("lost the broker");
    let line = worker.wait_for("can't consume: trying again until it works");
    assert!(line.contains("WRONGPASS") && line.contains("service=\"broker\""), "{line}");
    tell(&["CONFIG", "SET", "requirepass", "old"]).await;
    worker.wait_for("can consume again");
    assert_eq!(place.run(&["call", "-b", &url, "math.add", "2", "3", "--wait"]).ok(), "5");
    let log = worker.log.join("\n");
    assert!(!log.contains(":old@") && !log.contains(":new@"), "a password is shown:\n{log}");
}
