//! A task and its parameters may be called whatever Rust allows, the names of the macro's own helpers included.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use rwork::Context;
use rwork::testing::{TestContext, run as run_task};

/// A task called as the macro's runner once was, with parameters called as the runner's variables.
#[rwork::task(name = "names.run")]
fn run(ctx: &Context, context: String, input: String, call: String) -> String {
    format!("{} {context} {input} {call}", ctx.task())
}

/// A parameter of the task's own name.
#[rwork::task(name = "names.echo")]
fn echo(echo: String) -> String {
    echo
}

/// A keyword of Rust.
#[rwork::task(name = "names.raw")]
fn raw(r#type: String) -> String {
    r#type
}

rwork::plugin!(run, echo, raw);

#[test]
fn no_name_is_taken() {
    for (task, args, kwargs, wanted) in [
        ("names.run", r#"["a", "b", "c"]"#, "{}", r#""names.run a b c""#),
        ("names.echo", "[]", r#"{"echo": "x"}"#, r#""x""#),
        ("names.raw", "[]", r#"{"type": "x"}"#, r#""x""#),
    ] {
        assert_eq!(run_task(&PLUGIN, &TestContext::new(task), args, kwargs).unwrap(), wanted, "{task}");
    }
}
