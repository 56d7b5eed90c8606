//! A task's life from the command line: sent, run, read; given up, shown, sent again.

use super::Place;

#[test]
fn what_is_sent_waits_in_its_queue() {
    let place = Place::new();
    let id = place.run(&["call", "math.add", "2", "2"]).ok();
    assert_eq!(id.len(), 36, "a task id stands alone on stdout: {id}");
    place.run(&["call", "math.add", "2", "2", "-Q", "mail", "--countdown", "3600", "--id", "my-own-id"]).ok();
    insta::assert_snapshot!("queues", place.run(&["queues"]).ok());
    insta::assert_snapshot!("queues-json", place.run(&["queues", "--json"]).ok());
    assert_eq!(place.run(&["purge", "mail", "--yes"]).ok(), "mail: 1 deleted");
    assert_eq!(place.run(&["purge", "mail", "--yes", "--json"]).ok().replace(char::is_whitespace, ""), "[{\"name\":\"mail\",\"purged\":0}]");
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
