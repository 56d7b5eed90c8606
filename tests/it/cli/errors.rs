//! One snapshot for each class of error: what went wrong, why, what to do, and the exit status.

use super::Place;

/// Runs a command that must fail, and compares what it says.
#[track_caller]
fn check(name: &str, place: &Place, arguments: &[&str]) {
    let answer = place.run(arguments);
    assert_ne!(answer.status, 0, "{answer:?}");
    assert!(!answer.stderr.contains("panicked"), "{answer:?}");
    insta::assert_snapshot!(format!("error-{name}"), answer.shown());
}

#[test]
fn configuration() {
    let place = Place::new();
    place.write("rwork.toml", "task_default_queue = \"mail\"\nworker_concurency = 4\n");
    check("unknown-key", &place, &["config"]);
    place.write("rwork.toml", "\nworker_concurrency = 0\n");
    check("bad-value", &place, &["config"]);
    place.write("rwork.toml", "worker_concurrency = = 2\n");
    check("not-toml", &place, &["config"]);
    place.write("rwork.toml", "[plugins.web.grants]\nhttps = []\n");
    check("unknown-grant", &place, &["config"]);
    place.write("rwork.toml", "[tasks.\"math.add\"]\ntime_limits = 3\n");
    check("unknown-task-option", &place, &["config"]);
    check("no-such-config", &place, &["config", "--config", "other.toml"]);
    place.write("rwork.toml", "[broker_transport_options]\nvisibilty_timeout = 60\n");
    check("unknown-transport-option", &place, &["config"]);
    place.write("rwork.toml", "[broker_transport_options]\npriority_steps = [9, 0]\n");
    check("bad-transport-option", &place, &["config"]);
    place.write("rwork.toml", "accept_content = [\"json\", \"pickle\"]\n");
    check("pickle", &place, &["config"]);
    place.write("rwork.toml", "");
    check("unknown-key-asked", &place, &["config", "broker_ulr"]);
}

#[test]
fn a_variable_of_the_environment() {
    let place = Place::new();
    let output = place.command(&["config"]).env("RWORK_TASK_ACKS_LATE", "maybe").output().unwrap();
    insta::assert_snapshot!("error-bad-variable", super::Answer::of(&output, place.path()).shown());
}

#[test]
fn usage() {
    let place = Place::new();
    check("unknown-command", &place, &["cal"]);
    check("unknown-flag", &place, &["call", "math.add", "--wiat"]);
    check("bad-log-level", &place, &["run", "-l", "loud"]);
    check("beat", &place, &["run", "-B"]);
    check("nobody-to-ask", &place, &["purge", "celery"]);
}

#[test]
fn broker_and_backend() {
    let place = Place::new();
    check("unknown-scheme", &place, &["queues", "--broker", "kafka://localhost"]);
    check("later-scheme", &place, &["queues", "--broker", "sqs://me:secret@localhost/queue"]);
    check("redis-database", &place, &["queues", "--broker", "redis://me:secret@localhost/mine"]);
    check("redis-parameter", &place, &["queues", "--broker", "redis://localhost/0?visibility_timeout=5"]);
    let backend = "rediss://me:secret@localhost/0";
    check("redis-backend-tls", &place, &["result", "some-id", "--backend", backend]);
    check("redis-sentinel", &place, &["queues", "--broker", "sentinel://:secret@localhost:26379/0"]);
    check("no-scheme", &place, &["queues", "--broker", "rwork.db"]);
    check("bad-parameter", &place, &["queues", "--broker", "embedded:x.db?syncronous=full"]);
    place.write("file", "not a directory");
    check("unreachable", &place, &["queues", "--broker", "embedded:file/x.db"]);
    check("not-a-database", &place, &["queues", "--broker", "embedded:file"]);
}

#[test]
fn arguments_of_a_call() {
    let place = Place::new();
    check("bad-kwargs", &place, &["call", "math.add", "--kwargs", "{x: 1}"]);
    check("kwargs-no-object", &place, &["call", "math.add", "--kwargs", "[1]"]);
    check("bad-json-argument", &place, &["call", "math.sum", "[1, 2"]);
    check("no-such-file", &place, &["call", "images.thumbnail", "@nowhere.png"]);
    check("bad-pair", &place, &["call", "math.add", "-k", "x"]);
    check("bad-eta", &place, &["call", "math.add", "--eta", "tomorrow"]);
}

#[test]
fn what_is_not_there() {
    let place = Place::new();
    check("no-result", &place, &["result", "0199f2b6-7c3e-7f6e-9d3b-0b1c5a7e4f21"]);
    check("no-dead-letter", &place, &["dead", "show", "12"]);
    check("no-plugin-directory", &place, &["run", "--plugins", "nowhere", "--log-level", "off"]);
    place.write("rwork.toml", "[plugins.text.grants]\ndirs = [{ host = \"./data\", guest = \"/\" }]\n");
    check("no-granted-directory", &place, &["run", "--plugins", "."]);
    check("late", &place, &["call", "math.add", "1", "2", "--id", "some-id", "--wait", "--timeout", "0.01"]);
}
