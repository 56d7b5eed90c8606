//! Callbacks and chains after success.

use proptest::prelude::*;

use super::*;

#[test]
fn nothing_follows_nothing() {
    assert_eq!(World::new().succeed(&message(), "5").unwrap(), Next::default());
    let mut empty = message();
    empty.embed.chain = Some(Bytes::from_static(b"[]"));
    empty.embed.callbacks = Some(Bytes::from_static(b"[ ]"));
    assert_eq!(World::new().succeed(&empty, "5").unwrap(), Next::default());
}

#[test]
fn one_callback_is_sent_alone() {
    let mut parent = message();
    parent.embed.callbacks = Some(array(&[task("cb")]));
    let next = World::new().succeed(&parent, "5").unwrap();
    assert_eq!(shown(&next.publish), ["cb new1 root me - [5, 1]"]);
    assert_eq!(next.children.unwrap(), r#"[[["new1", null], null]]"#);
    let message = &next.publish[0].message;
    assert_eq!(message.headers.argsrepr.as_deref(), Some("(5, 1)"));
    assert_eq!(message.headers.origin.as_deref(), Some("gen1@host"));
    assert_eq!(message.properties.correlation_id.as_deref(), Some("new1"));
    assert_eq!(next.publish[0].queue, None);
}

#[test]
fn of_several_callbacks_groups_go_first_and_the_others_are_one_group() {
    let mut parent = message();
    let group = Signature::group(&[task("g1"), task("g2").immutable()]);
    parent.embed.callbacks = Some(array(&[task("a"), group, named("b")]));
    let next = World::new().succeed(&parent, "5").unwrap();
    assert_eq!(
        shown(&next.publish),
        [
            "g1 new2 root me new1/0 [5, 1]",
            "g2 new3 root me new1/1 [1]",
            "a new5 root me new4/0 [5, 1]",
            "b id-b root me new4/1 [5, 1]",
        ]
    );
    let children = r#"[[["new1", null], [[["new2", null], null], [["new3", null], null]]], [["new4", null], [[["new5", null], null], [["id-b", null], null]]]]"#;
    assert_eq!(next.children.unwrap(), children);
}

#[test]
fn the_next_step_is_the_last_one_stored() {
    let mut first = message();
    first.embed.chain = Some(array(&[named("last").immutable(), named("middle")]));
    let next = World::new().succeed(&first, "5").unwrap();
    assert_eq!(shown(&next.publish), ["middle id-middle root me - [5, 1]"]);
    assert_eq!(next.children.unwrap(), r#"[[["id-middle", null], null]]"#);
    let middle = &next.publish[0].message;
    assert_eq!(tasks(&middle.embed.chain), ["last"]);

    let next = World::new().succeed(middle, "6").unwrap();
    assert_eq!(shown(&next.publish), ["last id-last root id-middle - [1]"]);
    let last = &next.publish[0].message;
    assert_eq!(last.embed.chain.as_ref().unwrap(), "[]");
    assert_eq!(World::new().succeed(last, "7").unwrap(), Next::default());
}

#[test]
fn nothing_of_a_step_reaches_the_next() {
    let mut first = message();
    first.properties.priority = Some(9);
    first.headers.other.push(("x".to_owned(), Bytes::from_static(b"1")));
    first.embed.chain = Some(array(&[named("b")]));
    let next = World::new().succeed(&first, "5").unwrap();
    let second = &next.publish[0].message;
    assert_eq!((second.properties.priority, second.headers.other.len()), (None, 0));
}

#[test]
fn a_chain_within_a_chain_runs_before_the_rest() {
    let mut first = message();
    let inner = Signature::chain(&[task("x"), task("y")]).with_option("link", array(&[task("cb")]));
    first.embed.chain = Some(array(&[named("last"), inner]));
    let next = World::new().succeed(&first, "5").unwrap();
    assert_eq!(shown(&next.publish), ["x new1 root me - [5, 1]"]);
    let chain = next.publish[0].message.embed.chain.clone();
    assert_eq!(tasks(&chain), ["last", "y"]);
    let second = &World::new().succeed(&next.publish[0].message, "6").unwrap().publish[0].message;
    assert_eq!((second.headers.id.as_str(), tasks(&second.embed.callbacks)), ("new2", vec!["cb".to_owned()]));
}

#[test]
fn what_needs_counting_is_refused_with_nothing_sent() {
    let chord = Signature { subtask_type: Some("chord".to_owned()), ..task("celery.chord") };
    let group = Signature::group(&[task("a"), task("b")]);
    for chain in [array(std::slice::from_ref(&chord)), array(&[task("after"), group])] {
        let mut first = message();
        first.embed.callbacks = Some(array(&[task("cb")]));
        first.embed.chain = Some(chain);
        let error = World::new().succeed(&first, "5").unwrap_err();
        assert!(matches!(error, Error::NeedsChordCounter { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    let mut member = message();
    member.embed.chord = Some(task("body").encode());
    let error = World::new().succeed(&member, "5").unwrap_err().to_string();
    assert_eq!(error, "a member of a chord needs a result backend that can count chords, which none can yet");
}

#[test]
fn a_broken_follow_up_is_an_error() {
    for chain in [
        r#"[{"task": 1}]"#,
        "[7]",
        r#"[{"task": "a", "subtask_type": "tree"}]"#,
        r#"[{"task": "a", "options": {"priority": 300}}]"#,
    ] {
        let mut first = message();
        first.embed.chain = Some(Bytes::from_static(chain.as_bytes()));
        assert!(World::new().succeed(&first, "5").is_err(), "{chain}");
    }
}

/// Any nesting of chains around numbered steps.
fn nested_chain() -> impl Strategy<Value = Signature> {
    let leaf = Just(()).prop_map(|()| task("step"));
    let tree = leaf.prop_recursive(3, 16, 4, |inner| {
        prop::collection::vec(inner, 1..4).prop_map(|steps| Signature::chain(&steps))
    });
    prop::collection::vec(tree, 1..4).prop_map(|steps| Signature::chain(&steps))
}

/// The leaves, in order.
fn count(signature: &Signature) -> usize {
    if signature.subtask_type.is_none() {
        return 1;
    }
    let kwargs = json::entries(&signature.kwargs).unwrap();
    json::elements(&kwargs[0].1).unwrap().iter().map(|step| count(&Signature::parse(step).unwrap())).sum()
}

proptest! {
    #[test]
    fn every_step_runs_once_in_order_under_the_id_it_was_promised(chain in nested_chain()) {
        let mut world = World::new();
        let applied = world.apply(&chain, None).unwrap();
        let steps = count(&chain);
        prop_assert_eq!(applied.publish.len(), 1);
        let mut current = applied.publish[0].message.clone();
        for step in 1..=steps {
            prop_assert_eq!(current.headers.id.as_str(), format!("new{step}"));
            prop_assert_eq!(current.headers.root().as_str(), "new1");
            let next = world.succeed(&current, &step.to_string()).unwrap();
            prop_assert_eq!(next.publish.len(), usize::from(step < steps));
            if let Some(outgoing) = next.publish.into_iter().next() {
                prop_assert_eq!(outgoing.message.headers.parent_id.clone(), Some(current.headers.id.clone()));
                prop_assert_eq!(outgoing.message.args.clone(), format!("[{step}, 1]"));
                current = outgoing.message;
            }
        }
        prop_assert_eq!(Some(&current.headers.id), applied.id.as_ref());
    }
}
