//! The commands on a real RabbitMQ: calls, queues, what was given up, `doctor`, and servers that refuse, are not there or do
//! not answer, each with its own words and got over once it is put right.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use rwork_tests::process::is_full_run;
use rwork_tests::proxy::{Mode, Proxy};
use rwork_tests::rabbitmq::{Clients, RabbitServer};
use rwork_tests::tls::Tls;
use serde_json::Value;

use super::Place;
use super::brokers::{given_up, json};
use super::worker::Worker;

/// Within this a user is told what is wrong.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// A place with the `math` plugin, and the URL of a virtual host of its own.
fn place() -> (Place, String) {
    let server = RabbitServer::shared();
    (super::life::with_math(), server.url(&server.fresh_vhost_blocking().unwrap()))
}

#[test]
fn a_call_is_run_and_answered() {
    let (place, url) = place();
    let mut worker = Worker::start(&place, &["-b", &url]);
    assert_eq!(place.run(&["call", "-b", &url, "math.add", "2", "3", "--wait"]).ok(), "5");
    let rpc = ["-b", url.as_str(), "--backend", "rpc://"];
    assert_eq!(place.run(&[&["call"], &rpc[..], &["math.add", "2", "4", "--wait"]].concat()).ok(), "6");
    let failed = place.run(&["call", "-b", &url, "math.fail", "no luck", "--wait"]);
    assert_eq!((failed.status, failed.stderr.lines().next()), (1, Some("ValueError: no luck")));
    worker.signal(Signal::TERM);
    assert!(worker.end().success(), "{}", worker.log.join("\n"));
}

#[test]
fn queues_are_counted_and_purged() {
    let (place, url) = place();
    place.run(&["call", "-b", &url, "math.add", "1", "1"]).ok();
    place.run(&["call", "-b", &url, "math.add", "1", "1", "--countdown", "3600"]).ok();
    let queues = json(place.run(&["queues", "-b", &url, "--json"]));
    let count = |name: &str| queues[0][name].as_u64().unwrap();
    assert_eq!(
        (queues[0]["name"].as_str(), count("ready"), count("delayed"), count("held")),
        (Some("celery"), 1, 1, 0)
    );
    assert_eq!(place.run(&["purge", "-b", &url, "celery", "--yes"]).ok(), "celery: 2 deleted");
    assert_eq!(place.run(&["purge", "-b", &url, "celery", "--yes"]).ok(), "celery: 0 deleted");
}

#[test]
fn what_was_given_up_is_kept_and_sent_again() {
    let (place, url) = place();
    given_up(&place, &url);
}

#[test]
fn results_by_rpc_need_a_broker_that_can() {
    let place = Place::new();
    let answer = place.run(&["queues", "-b", "embedded:x.db", "--backend", "rpc://"]);
    assert_eq!(answer.status, 0, "queues need no results: {answer:?}");
    let answer = place.run(&["call", "-b", "embedded:x.db", "--backend", "rpc://", "math.add", "1", "2"]);
    assert_eq!(answer.status, 2, "{answer:?}");
    assert!(answer.stderr.contains("`rpc://` results") && answer.stderr.contains("hint: "), "{answer:?}");
}

#[test]
fn a_limit_beyond_the_servers_patience_is_told() {
    let (place, url) = place();
    place.write("rwork.toml", "task_time_limit = 20\n[amqp]\nconsumer_timeout = 10\n");
    let answer = place.run(&["run", "-b", &url, "--drain"]);
    assert_eq!(answer.status, 0, "{answer:?}");
    for words in ["`task_time_limit` (20 s)", "10 s", "`consumer_timeout` in the server's rabbitmq.conf"] {
        assert!(answer.stderr.contains(words), "{words}: {answer:?}");
    }
    place.write("rwork.toml", "task_time_limit = 10\n[amqp]\nconsumer_timeout = 10\n");
    let answer = place.run(&["run", "-b", &url, "--drain"]);
    assert!(!answer.stderr.contains("consumer_timeout"), "{answer:?}");
}

/// State, finding and hint of each of `doctor`'s checks.
fn doctor(place: &Place, url: &str) -> (i32, Vec<[String; 4]>) {
    let answer = place.run(&["doctor", "--json", "-b", url]);
    let document: Value = serde_json::from_str(&answer.stdout).unwrap();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = document.as_array().unwrap().iter();
    (
        answer.status,
        checks.map(|check| ["what", "state", "found", "hint"].map(|key| text(check, key))).collect(),
    )
}

#[test]
fn doctor_finds_a_good_server_good() {
    let (place, url) = place();
    place.run(&["call", "-b", &url, "math.add", "1", "1"]).ok();
    let (status, checks) = doctor(&place, &url);
    assert_eq!(status, 0, "{checks:?}");
    let brokers: Vec<_> = checks.iter().filter(|[what, ..]| what.starts_with("broker")).collect();
    assert!(brokers.len() >= 2 && brokers.iter().all(|[_, state, ..]| state == "ok"), "{brokers:?}");
}

/// Who is told what within five seconds, by a command that wants an answer at once.
#[track_caller]
fn refused(place: &Place, url: &str, words: &str) -> String {
    let began = Instant::now();
    let answer = place.run(&["queues", "-b", url]);
    let took = began.elapsed();
    assert_eq!(answer.status, 3, "{answer:?}");
    assert!(answer.stderr.contains(words) && answer.stderr.contains("hint: "), "`{words}`: {answer:?}");
    assert!(!answer.stderr.contains("secret"), "a password is shown: {answer:?}");
    // The short form runs beside other tests on a busy machine: it judges no times.
    assert!(took < TOLD_WITHIN || !is_full_run(), "it took {took:?}");
    answer.stderr
}

#[test]
fn each_mistake_has_its_own_words() {
    let server = RabbitServer::shared();
    let place = Place::new();
    let vhost = server.fresh_vhost_blocking().unwrap();
    let silent = Proxy::before(server.port()).unwrap();
    silent.set(Mode::Silent).unwrap();
    let shut = Proxy::before(server.port()).unwrap();
    shut.set(Mode::Shut).unwrap();
    let strange = tempfile::tempdir().unwrap();
    let authority = Tls::make(strange.path()).unwrap().authority;
    let by_proxy = |proxy: &Proxy| format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", proxy.port());
    let tls = format!("amqps://guest:guest@localhost:{}/{vhost}?ssl_ca_certs=", server.tls_port());
    let said = [
        refused(&place, &server.url_of("nobody", "secret", &vhost), "user"),
        refused(&place, &server.url("nowhere"), "virtual host"),
        refused(&place, &format!("{tls}{}", authority.display()), "certificate"),
        refused(&place, &by_proxy(&shut), "connection refused"),
        refused(&place, &by_proxy(&silent), "not answered within"),
        // A TLS port spoken to in plain, and the other way round.
        refused(&place, &format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", server.tls_port()), "TLS"),
        refused(&place, &format!("amqps://guest:guest@localhost:{}/{vhost}", server.port()), "TLS"),
    ];
    let hints: std::collections::BTreeSet<&str> =
        said.iter().filter_map(|text| text.split_once("hint: ").map(|(_, hint)| hint)).collect();
    assert_eq!(hints.len(), said.len(), "two of them have the same hint:\n{}", said.join("\n"));
    // What the server can't tell apart by its own rules: whether the user or the password was wrong.
    refused(&place, &server.url_of("guest", "secret", &vhost), "user");
    // A whole list of those who keep silent has one deadline, which is the driver's own and looked at there.
    let list = [by_proxy(&silent), by_proxy(&silent), by_proxy(&silent)].join(";");
    refused(&place, &list, "not answered within 4 s");
}

#[test]
fn a_certificate_is_shown_where_it_is_wanted() {
    let server = RabbitServer::start_for(Clients::Certified).unwrap();
    let vhost = server.fresh_vhost_blocking().unwrap();
    let place = super::life::with_math();
    let url = server.certified_url(&vhost, server.tls());
    let mut worker = Worker::start(&place, &["-b", &url]);
    assert_eq!(place.run(&["call", "-b", &url, "math.add", "2", "3", "--wait"]).ok(), "5");
    worker.signal(Signal::TERM);
    assert!(worker.end().success(), "{}", worker.log.join("\n"));
    let folder = tempfile::tempdir().unwrap();
    let other = Tls::make(folder.path()).unwrap();
    let said = refused(&place, &server.tls_url(&vhost), "it wants a certificate, and we showed none");
    assert!(said.contains("`ssl_certfile`"), "{said}");
    refused(&place, &server.certified_url(&vhost, &other), "it does not take our certificate");
}

#[test]
fn a_list_of_servers_is_gone_through() {
    let (one, two) = (RabbitServer::start().unwrap(), RabbitServer::shared());
    let dead = Proxy::before(one.port()).unwrap();
    dead.set(Mode::Shut).unwrap();
    let at = |port: u16, vhost: &str| format!("amqp://guest:guest@127.0.0.1:{port}/{vhost}");
    let first = at(one.port(), &one.fresh_vhost_blocking().unwrap());
    let second = two.url(&two.fresh_vhost_blocking().unwrap());
    let url = [at(dead.port(), "nowhere"), first.clone(), second.clone()].join(";");
    let shown = |url: &str| url.replace("guest:guest@", "***@");
    let place = super::life::with_math();
    let moved = |worker: &mut Worker, to: &str| {
        let line = worker.wait_for("moved on to another server of the list");
        assert!(line.contains(&shown(to)) && line.contains("connection refused"), "{line}");
        assert!(!line.contains("guest:guest"), "{line}");
    };
    let works = |url: &str| {
        assert_eq!(place.run(&["call", "-b", url, "math.add", "2", "3", "--wait"]).ok(), "5", "{url}");
    };
    // The first is not there.
    let mut worker = Worker::spawn(&place, &["-b", &url]);
    moved(&mut worker, &first);
    worker.wait_for("ready");
    works(&url);
    works(&first);
    // The one that serves dies in the middle.
    one.kill_9().unwrap();
    worker.wait_for("lost the broker");
    moved(&mut worker, &second);
    worker.wait_for("can consume again");
    works(&url);
    works(&second);
    worker.signal(Signal::TERM);
    assert!(worker.end().success(), "{}", worker.log.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_gets_over_each_once_it_is_put_right() {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost().await.unwrap();
    let user = format!("user-of-{vhost}");
    server.add_user(&user, "right").await.unwrap();
    server.permit(&user, &vhost).await.unwrap();
    let place = super::life::with_math();
    // Its own copy of the authority's certificate, behind a door of its own.
    let proxy = Proxy::before(server.tls_port()).unwrap();
    let authority = place.path().join("authority.pem");
    std::fs::copy(&server.tls().authority, &authority).unwrap();
    let strange = tempfile::tempdir().unwrap();
    let stranger = Tls::make(strange.path()).unwrap().authority;
    let url = format!(
        "amqps://{user}:right@localhost:{}/{vhost}?ssl_ca_certs={}",
        proxy.port(),
        authority.display()
    );
    let mut worker = Worker::start(&place, &["-b", &url]);
    let cut = async || server.close_connections(&vhost, "for a test").await.unwrap();
    let told = |worker: &mut Worker, words: &str| {
        let line = worker.wait_for("can't consume: trying again until it works");
        assert!(line.contains(words) && line.contains("service=\"broker\""), "`{words}`: {line}");
    };
    let works = |worker: &mut Worker| {
        worker.wait_for("can consume again");
        assert_eq!(place.run(&["call", "-b", &url, "math.add", "2", "3", "--wait"]).ok(), "5");
    };

    server.set_password(&user, "other").await.unwrap();
    cut().await;
    told(&mut worker, "user");
    server.set_password(&user, "right").await.unwrap();
    works(&mut worker);

    server.forbid(&user, &vhost).await.unwrap();
    cut().await;
    told(&mut worker, "virtual host");
    server.permit(&user, &vhost).await.unwrap();
    works(&mut worker);

    server.delete_vhost(&vhost).await.unwrap();
    told(&mut worker, "no virtual host");
    server.add_vhost(&vhost).await.unwrap();
    server.permit(&user, &vhost).await.unwrap();
    works(&mut worker);

    std::fs::copy(&stranger, &authority).unwrap();
    cut().await;
    told(&mut worker, "certificate");
    std::fs::copy(&server.tls().authority, &authority).unwrap();
    works(&mut worker);

    // That nobody is there is no other news than that the connection was lost.
    for mode in [Mode::Shut, Mode::Silent] {
        proxy.set(mode).unwrap();
        worker.wait_for("lost the broker");
        proxy.set(Mode::Open).unwrap();
        works(&mut worker);
    }

    let log = worker.log.join("\n");
    assert!(!log.contains(":right@") && !log.contains(":other@"), "a password is shown:\n{log}");
}

/// A worker that finds its server so waits, and says why.
#[track_caller]
fn waits_for(mode: Mode, words: &str) {
    let server = RabbitServer::shared();
    let vhost = server.fresh_vhost_blocking().unwrap();
    let proxy = Proxy::before(server.port()).unwrap();
    proxy.set(mode).unwrap();
    let place = super::life::with_math();
    let url = format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", proxy.port());
    let mut worker = Worker::spawn(&place, &["-b", &url]);
    let line = worker.wait_for("can't reach the broker yet");
    assert!(line.contains(words) && line.contains("hint="), "{line}");
    proxy.set(Mode::Open).unwrap();
    worker.wait_for("ready");
    assert_eq!(place.run(&["call", "-b", &url, "math.add", "2", "3", "--wait"]).ok(), "5");
    // Who wants an answer at once has it.
    proxy.set(Mode::Shut).unwrap();
    assert_eq!(place.run(&["run", "-b", &url, "--drain"]).status, 3);
}

#[test]
fn a_worker_waits_for_a_server_that_is_not_there_yet() {
    waits_for(Mode::Shut, "connection refused");
}

#[test]
fn a_worker_waits_for_a_server_that_does_not_answer_yet() {
    waits_for(Mode::Silent, "not answered within");
}
