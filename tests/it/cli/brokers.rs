//! What the commands do on every broker.

use serde_json::Value;

use super::{Answer, Place};

#[track_caller]
pub(super) fn json(answer: Answer) -> Value {
    serde_json::from_str(&answer.ok()).unwrap()
}

/// A message that nobody can run: it is given up, shown, sent again and, given up again, deleted.
#[track_caller]
pub(super) fn given_up(place: &Place, url: &str) {
    place.run(&["call", "-b", url, "math.nope", "--id", "nobody-knows-it"]).ok();
    let drain = || assert_eq!(place.run(&["run", "-b", url, "--drain"]).status, 0);
    drain();
    let letters = json(place.run(&["dead", "list", "-b", url, "--json"]));
    let letter = letters[0]["id"].as_str().unwrap();
    let shown = place.run(&["dead", "show", "-b", url, letter]).ok();
    assert!(shown.contains("task id     nobody-knows-it") && shown.contains("unknown-task"), "{shown}");
    place.run(&["dead", "retry", "-b", url, letter]).ok();
    assert_eq!(json(place.run(&["dead", "list", "-b", url, "--json"])), serde_json::json!([]));
    drain();
    place.run(&["dead", "purge", "-b", url, "--all", "--yes"]).ok();
    assert_eq!(json(place.run(&["dead", "list", "-b", url, "--json"])), serde_json::json!([]));
}
