//! Signatures sent from a task or a producer.

use std::time::Duration;

use super::*;
use crate::FAN_OUT_MAX;

#[test]
fn a_simple_signature_belongs_to_its_sender_unless_it_says_otherwise() {
    let parent = message();
    let applied = World::new().apply(&named("a"), Some(&parent)).unwrap();
    assert_eq!(shown(&applied.publish), ["a id-a root me - [7, 1]"]);
    assert_eq!(applied.child.unwrap(), r#"[["id-a", null], null]"#);
    let own = task("a").with_option("root_id", json::string("r")).with_option("parent_id", json::string("p"));
    assert_eq!(shown(&World::new().apply(&own, Some(&parent)).unwrap().publish), ["a new1 r p - [7, 1]"]);
    assert_eq!(shown(&World::new().apply(&task("a"), None).unwrap().publish), ["a new1 new1 - - [7, 1]"]);
}

#[test]
fn options_become_what_they_mean() {
    let signature = task("a")
        .with_option("countdown", "1.5")
        .with_option("eta", "\"2030-01-01T00:00:00\"")
        .with_option("expires", "60")
        .with_option("queue", "\"fast\"")
        .with_option("priority", "7")
        .with_option("time_limit", "2")
        .with_option("soft_time_limit", "0.5")
        .with_option("headers", "{\"x\": [1]}")
        .with_option("ignore_result", "true")
        .with_option("shadow", "\"s\"")
        .with_option("reply_to", "\"q\"")
        .with_option("retries", "2")
        .with_option("link", task("cb").encode())
        .with_option("link_error", array(&[task("eb")]))
        .with_option("stamped_headers", "[\"k\", \"missing\"]")
        .with_option("k", "\"v\"")
        .with_option("chord", "null")
        .with_option("max_retries", "9");
    let applied = World::new().apply(&signature, None).unwrap();
    let Outgoing { queue, message, eta } = &applied.publish[0];
    assert_eq!(queue.as_ref().unwrap().as_str(), "fast");
    assert_eq!(*eta, Some(NOW.plus(Duration::from_millis(1500))));
    assert_eq!(message.headers.eta, *eta);
    assert_eq!(message.headers.expires, Some(NOW.plus(Duration::from_secs(60))));
    assert_eq!(message.properties.expiration.as_deref(), Some("60000"));
    assert_eq!((message.properties.priority, message.properties.reply_to.as_deref()), (Some(7), Some("q")));
    assert_eq!(message.headers.hard_time_limit, Some(Duration::from_secs(2)));
    assert_eq!(message.headers.soft_time_limit, Some(Duration::from_millis(500)));
    assert_eq!(message.headers.other, [("x".to_owned(), Bytes::from_static(b"[1]"))]);
    assert_eq!((message.headers.ignore_result, message.headers.retries), (Some(true), 2));
    assert_eq!(
        (tasks(&message.embed.callbacks), tasks(&message.embed.errbacks)),
        (vec!["cb".to_owned()], vec!["eb".to_owned()])
    );
    assert_eq!(message.headers.stamps.as_ref().unwrap(), "{\"k\": \"v\"}");
    assert_eq!(message.headers.stamped_headers.as_ref().unwrap(), "[\"k\", \"missing\"]");
}

#[test]
fn routing_keys_are_queues_on_the_default_exchange_only() {
    let keyed = task("a").with_option("routing_key", "\"slow\"");
    let queue = |signature: &Signature| {
        World::new().apply(signature, None).map(|applied| applied.publish[0].queue.clone())
    };
    assert_eq!(queue(&keyed).unwrap().unwrap().as_str(), "slow");
    assert_eq!(queue(&keyed.clone().with_option("exchange", "\"\"")).unwrap().unwrap().as_str(), "slow");
    let error = queue(&keyed.with_option("exchange", "\"topics\"")).unwrap_err().to_string();
    assert!(error.contains("found exchange `topics`"), "{error}");
}

#[test]
fn bad_options_are_named() {
    for (name, value, part) in [
        ("priority", "\"high\"", "option `priority` to be a whole number, found `\"high\"`"),
        ("countdown", "\"soon\"", "a number of seconds"),
        ("eta", "5", "an ISO 8601 time"),
        ("time_limit", "-1", "0 or more"),
        ("chain", "{}", "an array"),
        ("headers", "{\"id\": 1}", "own headers"),
        ("queue", "\"\"", "failed to use option `queue`"),
        ("ignore_result", "1", "a boolean"),
    ] {
        let error = World::new().apply(&task("a").with_option(name, value), None).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn a_group_is_counted_as_celery_counts_it() {
    let nested = Signature::group(&[Signature::group(&[task("a"), task("b")]), task("c")])
        .with_option("queue", "\"q\"")
        .with_option("task_id", "\"gid\"");
    let applied = World::new().apply(&nested, Some(&message())).unwrap();
    assert_eq!(
        shown(&applied.publish),
        ["b new1 root me gid/0 [7, 1]", "a new2 root me gid/1 [7, 1]", "c new3 root me gid/2 [7, 1]"]
    );
    assert!(
        applied.publish.iter().all(|sent| sent.queue.as_ref().is_some_and(|queue| queue.as_str() == "q"))
    );
    assert_eq!(applied.id.unwrap().as_str(), "gid");
    let child =
        r#"[["gid", null], [[["new1", null], null], [["new2", null], null], [["new3", null], null]]]"#;
    assert_eq!(applied.child.unwrap(), child);
}

#[test]
fn chains_in_a_group_belong_to_it_with_their_last_step() {
    let group = Signature::group(&[Signature::chain(&[task("a"), task("b")]), task("c")]);
    let mut world = World::new();
    let applied = world.apply(&group, None).unwrap();
    assert_eq!(shown(&applied.publish), ["a new2 new2 - - [7, 1]", "c new4 new4 - new1/1 [7, 1]"]);
    assert_eq!(
        applied.child.unwrap(),
        r#"[["new1", null], [[["new3", [["new2", null], null]], null], [["new4", null], null]]]"#
    );
    let next = world.succeed(&applied.publish[0].message, "5").unwrap();
    assert_eq!(shown(&next.publish), ["b new3 new2 new2 new1/0 [5, 1]"]);
}

#[test]
fn a_chain_passes_its_options_on_as_celery_does() {
    let chain =
        Signature::chain(&[task("a"), Signature::group(&[task("only")]), Signature::group(&[]), task("z")])
            .with_option("countdown", "10")
            .with_option("task_id", "\"whole\"")
            .with_option("link_error", task("eb").encode())
            .with_option("link", task("cb").encode());
    let mut world = World::new();
    let applied = world.apply(&chain, None).unwrap();
    assert_eq!(applied.id.as_ref().unwrap().as_str(), "whole");
    let first = &applied.publish[0];
    assert_eq!(first.eta, Some(NOW.plus(Duration::from_secs(10))));
    assert_eq!(
        (tasks(&first.message.embed.chain), tasks(&first.message.embed.errbacks)),
        (vec!["z".to_owned(), "only".to_owned()], vec!["eb".to_owned()])
    );
    let second = &world.succeed(&first.message, "5").unwrap().publish[0];
    assert_eq!((second.eta, tasks(&second.message.embed.callbacks)), (None, vec![]));
    let last = &world.succeed(&second.message, "6").unwrap().publish[0].message;
    assert_eq!((last.headers.id.as_str(), tasks(&last.embed.callbacks)), ("whole", vec!["cb".to_owned()]));
}

#[test]
fn a_chain_may_end_in_a_group() {
    let chain = Signature::chain(&[task("a"), Signature::group(&[task("b"), task("c")])]);
    let mut world = World::new();
    let applied = world.apply(&chain, None).unwrap();
    let next = world.succeed(&applied.publish[0].message, "5").unwrap();
    let group = applied.id.unwrap();
    assert_eq!(
        shown(&next.publish),
        [format!("b new3 new1 new1 {group}/0 [5, 1]"), format!("c new4 new1 new1 {group}/1 [5, 1]")]
    );
}

#[test]
fn empty_composites_send_nothing() {
    for empty in [Signature::chain(&[]), Signature::group(&[]), Signature::chain(&[Signature::group(&[])])] {
        assert_eq!(World::new().apply(&empty, None).unwrap(), Applied::default());
    }
}

#[test]
fn fan_out_ends_somewhere() {
    let members = vec![task("a"); FAN_OUT_MAX + 1];
    assert_eq!(
        World::new().apply(&Signature::group(&members), None).unwrap_err(),
        Error::FanOut { limit: FAN_OUT_MAX }
    );
    let links = Signature::group(&[task("a")]).with_option("link", task("b").encode());
    assert!(matches!(World::new().apply(&links, None), Err(Error::Unsupported { .. })));
}
