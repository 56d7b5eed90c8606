//! Errbacks and abandoned steps after failure.

use super::*;
use crate::FailedStep;

#[test]
fn nothing_follows_nothing() {
    assert_eq!(World::new().fail(&message()), Next::default());
}

#[test]
fn abandoned_steps_are_named_in_the_order_they_are_stored() {
    let mut first = message();
    let body = named("body").with_option("group_id", json::string("g"));
    let kwargs = json::object_of(&[("header", Bytes::from_static(b"[]")), ("body", body.encode())]);
    let chord =
        Signature { subtask_type: Some("chord".to_owned()), ..named("celery.chord").with_kwargs(kwargs) };
    first.embed.chain = Some(array(&[named("last"), chord, task("without-id")]));
    let next = World::new().fail(&first);
    let told = |step: &FailedStep| {
        let FailedStep { id, group_id, task, args, .. } = step;
        format!("{id} {:?} {task}{}", group_id.as_deref(), String::from_utf8_lossy(args))
    };
    let told: Vec<_> = next.also_fail.iter().map(told).collect();
    assert_eq!(
        told,
        ["id-last None last[1]", "id-celery.chord None celery.chord[1]", "id-body Some(\"g\") body[1]"]
    );
    assert!(next.publish.is_empty() && next.refused.is_empty());
}

#[test]
fn errbacks_get_the_id_as_one_group() {
    let mut failed = message();
    failed.embed.errbacks = Some(array(&[task("e1"), task("e2").immutable()]));
    let next = World::new().fail(&failed);
    assert_eq!(shown(&next.publish), [r#"e1 new2 root me new1/0 ["me", 1]"#, "e2 new3 root me new1/1 [1]"]);
    assert!(next.children.unwrap().starts_with(b"[[[\"new1\", null], "));
}

#[test]
fn a_broken_errback_keeps_back_nothing_else() {
    let mut failed = message();
    let chord = Signature { subtask_type: Some("chord".to_owned()), ..task("celery.chord") };
    let broken = [Bytes::from_static(b"{}"), chord.encode(), task("good").encode()];
    failed.embed.errbacks = Some(json::array_of(&broken));
    failed.embed.chain = Some(Bytes::from_static(br#"[7, {"task": "s", "options": {"task_id": "s1"}}]"#));
    let next = World::new().fail(&failed);
    assert_eq!(shown(&next.publish), [r#"good new2 root me new1/0 ["me", 1]"#]);
    assert_eq!((next.refused.len(), next.also_fail.len()), (3, 1));
}

#[test]
fn a_chord_member_that_fails_still_sends_its_errbacks() {
    let mut failed = message();
    failed.embed.chord = Some(task("body").encode());
    failed.embed.errbacks = Some(array(&[task("e")]));
    assert_eq!(World::new().fail(&failed).publish.len(), 1);
}
