//! Replacing a running task.

use super::*;

fn replaced() -> TaskMessage {
    let mut message = message();
    message.headers.group = Some("g".to_owned());
    message.headers.group_index = Some(3);
    message.headers.replaced_task_nesting = 1;
    message.embed.callbacks = Some(array(&[task("cb")]));
    message.embed.errbacks = Some(array(&[task("eb")]));
    message
}

#[test]
fn a_signature_takes_the_id_and_everything_that_follows() {
    let next =
        World::new().replace(&replaced(), &named("other").with_option("link", task("own").encode())).unwrap();
    assert_eq!(shown(&next.publish), ["other me root me g/3 [1]"]);
    let message = &next.publish[0].message;
    assert_eq!(tasks(&message.embed.callbacks), ["own", "cb"]);
    assert_eq!(tasks(&message.embed.errbacks), ["eb"]);
    assert_eq!(message.headers.replaced_task_nesting, 2);
    assert_eq!(next.children, None);
}

#[test]
fn a_chain_ends_where_the_task_would_have_and_the_rest_follows() {
    let mut message = replaced();
    message.embed.chain = Some(array(&[named("last"), named("then")]));
    let mut world = World::new();
    let mut current = message.clone();
    let mut ran = Vec::new();
    let mut next = world.replace(&current, &Signature::chain(&[task("a"), task("b")])).unwrap();
    while let Some(outgoing) =
        next.publish.iter().find(|outgoing| outgoing.message.headers.task.as_str() != "cb")
    {
        current = outgoing.message.clone();
        ran.push(show(outgoing));
        assert_eq!(current.headers.replaced_task_nesting, 2);
        next = world.succeed(&current, "5").unwrap();
    }
    assert_eq!(
        ran,
        [
            "a new1 root me - [1]",
            "b me root new1 g/3 [5, 1]",
            "then id-then root me - [5, 1]",
            "last id-last root id-then - [5, 1]",
        ]
    );
}

#[test]
fn what_cannot_take_the_place_is_refused() {
    let group = Signature::group(&[task("a"), task("b")]);
    for signature in [
        group.clone(),
        Signature::chain(&[task("a"), group]),
        task("a").with_option("chord", task("b").encode()),
    ] {
        let error = World::new().replace(&message(), &signature).unwrap_err();
        assert!(matches!(error, Error::NeedsChordCounter { .. }), "{error}");
    }
    let error = World::new().replace(&message(), &Signature::chain(&[])).unwrap_err().to_string();
    assert_eq!(
        error,
        "expected a signature with something in it to take a task's place, found a chain of no steps"
    );
}
