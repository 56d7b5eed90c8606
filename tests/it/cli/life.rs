//! A task's life from the command line: sent, run, read; given up, shown, sent again.

use rustix::process::Signal;
use rwork_tests::guests::guest;

use super::Place;
use super::worker::Worker;

#[test]
fn what_is_sent_waits_in_its_queue() {
    let place = Place::new();
    let id = place.run(&["call", "math.add", "2", "2"]).ok();
    assert_eq!(id.len(), 36, "a task id stands alone on stdout: {id}");
    place.run(&["call", "math.add", "2", "2", "-Q", "mail", "--countdown", "3600", "--id", "my-own-id"]).ok();
    insta::assert_snapshot!("queues", place.run(&["queues"]).ok());
    insta::assert_snapshot!("queues-json", place.run(&["queues", "--json"]).ok());
    assert_eq!(place.run(&["purge", "mail", "--yes"]).ok(), "mail: 1 deleted");
    assert_eq!(
        place.run(&["purge", "mail", "--yes", "--json"]).ok().replace(char::is_whitespace, ""),
        "[{\"name\":\"mail\",\"purged\":0}]"
    );
    assert_eq!(place.run(&["result", &id]).status, 1);
}

#[test]
fn every_layer_of_the_configuration_is_shown() {
    let place = Place::new();
    place.write("rwork.toml", "task_default_queue = \"mail\"\nresult_expires = 60\n");
    std::fs::create_dir(place.path().join("below")).unwrap();
    let mut command = place.command(&["config", "--changed", "--broker", "embedded://me:secret@x/db"]);
    command.current_dir(place.path().join("below")).env("RWORK_RESULT_EXPIRES", "0");
    let answer = super::Answer::of(&command.output().unwrap(), place.path());
    insta::assert_snapshot!("config-changed", answer.shown());
    assert_eq!(place.run(&["config", "task_default_queue"]).ok(), "mail");
}

/// A place with the `math` plugin.
pub(super) fn with_math() -> Place {
    with_plugin("math")
}

fn with_plugin(name: &str) -> Place {
    let place = Place::new();
    let plugins = place.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guest(name), plugins.join(format!("{name}.wasm"))).unwrap();
    place
}

#[test]
fn what_is_sent_is_run_and_read() {
    let place = with_math();
    let add = place.run(&["call", "math.add", "2", "-k", "b=2"]).ok();
    let fail = place.run(&["call", "math.fail", "no luck"]).ok();
    place.run(&["call", "math.nope", "--id", "nobody-knows-it"]).ok();
    assert_eq!(place.run(&["run", "--drain"]).status, 0);

    assert_eq!(place.run(&["result", &add]).ok(), "4");
    let failed = place.run(&["result", &fail]);
    assert_eq!((failed.status, failed.stdout.as_str()), (1, ""));
    assert!(failed.stderr.starts_with("ValueError: no luck\n"), "{failed:?}");
    let record: serde_json::Value =
        serde_json::from_str(&place.run(&["result", &add, "--json"]).ok()).unwrap();
    assert_eq!((record["status"].as_str(), record["result"].as_i64()), (Some("SUCCESS"), Some(4)));

    place.run(&["result", &add, "--forget"]).ok();
    assert_eq!(place.run(&["result", &add]).status, 1);
}

#[test]
fn what_was_given_up_is_shown_and_sent_again() {
    let place = with_math();
    place.run(&["call", "math.nope", "--id", "nobody-knows-it"]).ok();
    assert_eq!(place.run(&["run", "--drain"]).status, 0);
    insta::assert_snapshot!("unknown-task", place.run(&["result", "nobody-knows-it"]).shown());
    let listed = place.run(&["dead", "list"]).ok();
    assert!(listed.contains("math.nope") && listed.contains("unknown-task"), "{listed}");
    let shown = place.run(&["dead", "show", "1"]).ok();
    assert!(shown.contains("task id     nobody-knows-it"), "{shown}");
    let letters: serde_json::Value =
        serde_json::from_str(&place.run(&["dead", "list", "--json"]).ok()).unwrap();
    assert_eq!(letters[0]["reason"]["kind"], "unknown-task");

    assert_eq!(place.run(&["dead", "retry", "1"]).ok(), "1 retried");
    let queues: serde_json::Value = serde_json::from_str(&place.run(&["queues", "--json"]).ok()).unwrap();
    assert_eq!((queues[0]["ready"].as_i64(), queues[0]["dead"].as_i64()), (Some(1), Some(0)));
    assert_eq!(place.run(&["dead", "retry", "1"]).status, 1, "there is none any more");
    assert_eq!(place.run(&["run", "--drain"]).status, 0);
    assert_eq!(place.run(&["dead", "purge", "--all", "--yes"]).ok(), "1 deleted");
}

#[test]
fn a_worker_says_what_it_serves_and_what_it_refuses() {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("plugins/folder.wasm")).unwrap();
    place.write("plugins/empty.wasm", "");
    place.write("plugins/text.wasm", "not WebAssembly at all");
    let arguments = ["run", "--drain", "-l", "off", "-n", "w1@here", "-c", "2", "-Q", "reports,mail"];
    insta::assert_snapshot!("banner", place.run(&arguments).shown());
    assert_eq!(place.run(&[&arguments[..], &["--quiet"]].concat()).stderr, "");
}

#[test]
fn the_first_signal_drains() {
    let place = with_math();
    let mut worker = Worker::start(&place, &["-l", "debug", "-n", "w1@here"]);
    assert!(worker.log.iter().any(|line| line.contains("w1@here")), "{:?}", worker.log);
    let id = place.run(&["call", "math.sleep", "0.5"]).ok();
    worker.wait_for("task started");
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().code(), Some(0), "{:?}", worker.log);
    assert_eq!(place.run(&["result", &id]).ok(), "0.5", "what ran was let end");
}

#[test]
fn the_second_signal_cuts_short_and_gives_back() {
    // It never looks up, so that it is ended by force.
    let place = with_plugin("hostile");
    let mut worker = Worker::start(&place, &["-l", "debug"]);
    place.run(&["call", "hostile.spin"]).ok();
    worker.wait_for("task started");
    worker.signal(Signal::INT);
    worker.wait_for("the next signal stops it");
    worker.signal(Signal::INT);
    assert_eq!(worker.end().code(), Some(130), "{:?}", worker.log);
    let queues: serde_json::Value = serde_json::from_str(&place.run(&["queues", "--json"]).ok()).unwrap();
    assert_eq!(queues[0]["ready"].as_i64(), Some(1), "its message is back");
}

#[test]
fn the_log_for_programs_is_json_with_task_id_and_name() {
    let place = with_math();
    let mut worker = Worker::start(&place, &["--log-format", "json"]);
    let id = "a-\"quoted\"-id";
    assert_eq!(place.run(&["call", "math.add", "2", "2", "--id", id, "--wait"]).ok(), "4");
    worker.signal(Signal::QUIT);
    worker.end();
    let lines: Vec<serde_json::Value> = worker
        .log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let ours = lines.iter().find(|line| line["task_id"] == id).unwrap_or_else(|| panic!("{:#?}", worker.log));
    assert_eq!(ours["task_name"], "math.add");
}

/// A worker that would meet the limit of open files does not start, rather than fail innocent tasks; one that may raise it
/// does so.
#[test]
fn the_limit_of_open_files_is_raised_or_told_of() {
    let place = Place::new();
    let run = |limits: &str, more: &[&str]| {
        let script = format!("ulimit {limits}; exec \"$0\" \"$@\"");
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &script]).arg(rwork_tests::binary::rwork());
        shell.args(["run", "--drain", "--plugins", "."]).args(more);
        let output = shell.current_dir(place.path()).env("NO_COLOR", "1").output().unwrap();
        super::Answer::of(&output, place.path())
    };
    let refused = run("-n 64", &[]);
    assert_eq!(refused.status, 1, "{refused:?}");
    for words in ["may open 64 files", "LimitNOFILE=", "worker_max_in_flight"] {
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    assert_eq!(run("-Sn 64", &[]).status, 0);
}
