//! Arguments find their parameters by Python's rules, and errors are in Python's words.
//!
//! The expected texts of `TypeError`s that Python has too are those of CPython 3.11, checked against it: the function of
//! each row was defined there with the same parameters and called with the same arguments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;

use rwork::testing::{TestContext, run};
use rwork::{Context, Input, TaskError, Value};
use serde::{Deserialize, Serialize};

#[rwork::task]
fn none() {}

#[rwork::task]
fn one(x: i64) -> i64 {
    x
}

#[rwork::task]
fn two(x: i64, y: i64) -> (i64, i64) {
    (x, y)
}

#[rwork::task]
fn three(a: u8, b: u8, c: u8) -> u8 {
    a + b + c
}

#[rwork::task]
fn four(a: u8, b: u8, c: u8, d: u8) -> u8 {
    a + b + c + d
}

#[rwork::task]
fn defaulted(x: i64, #[default(5)] y: i64, #[default("no")] text: &str) -> String {
    format!("{x} {y} {text}")
}

#[rwork::task]
fn optional(#[default(0)] x: i64, y: Option<i64>) -> (i64, Option<i64>) {
    (x, y)
}

#[rwork::task]
fn keyword_only(x: i64, #[args] rest: Vec<i64>, y: i64, #[default(1)] z: i64) -> (i64, Vec<i64>, i64, i64) {
    (x, rest, y, z)
}

#[rwork::task]
fn required_keywords(x: i64, #[args] rest: &[i64], y: i64, z: i64) -> i64 {
    x + rest.iter().sum::<i64>() + y + z
}

#[rwork::task]
fn catch_all(
    #[args] rest: Vec<Value>,
    #[kwargs] named: BTreeMap<String, Value>,
) -> (Vec<Value>, BTreeMap<String, Value>) {
    (rest, named)
}

#[rwork::task]
fn named(x: i64, #[kwargs] others: &BTreeMap<String, i64>) -> i64 {
    x + others.values().sum::<i64>()
}

#[derive(Serialize, Deserialize)]
struct Size {
    width: u32,
    height: u32,
}

#[rwork::task]
fn structured(ctx: &Context, size: &Size, r#type: String, mut factor: u32) -> Result<Size, TaskError> {
    factor += u32::from(ctx.task().ends_with(&r#type));
    Ok(Size { width: size.width * factor, height: size.height * factor })
}

#[rwork::task]
fn raw(ctx: &Context, input: Input) -> String {
    match input {
        Input::Call { args, .. } => format!("{} {}", ctx.task(), String::from_utf8_lossy(&args)),
        Input::Raw { .. } => "raw".to_owned(),
    }
}

mod nested {
    #[rwork::task(name = "other.name")]
    pub(crate) fn task(x: f64) -> f64 {
        x
    }
}

rwork::plugin!(
    none,
    one,
    two,
    three,
    four,
    defaulted,
    optional,
    keyword_only,
    required_keywords,
    catch_all,
    named,
    structured,
    raw,
    nested::task
);

fn call(task: &str, args: &str, kwargs: &str) -> Result<String, TaskError> {
    let name = if task.contains('.') { task.to_owned() } else { format!("rwork.{task}") };
    run(&PLUGIN, &TestContext::new(&name), args, kwargs)
}

fn fails(task: &str, args: &str, kwargs: &str, wanted: &str) {
    let error = call(task, args, kwargs).unwrap_err();
    assert_eq!(error.exc_module(), Some("builtins"));
    assert_eq!(error.to_string(), format!("TypeError: {task}() {wanted}"), "{task} {args} {kwargs}");
    assert!(!error.is_retryable(), "the same message fails again");
}

#[test]
fn wrong_calls_fail_in_pythons_words() {
    for (task, args, kwargs, wanted) in [
        ("none", "[1]", "{}", "takes 0 positional arguments but 1 was given"),
        ("none", "[1, 2]", "{}", "takes 0 positional arguments but 2 were given"),
        ("none", "[]", r#"{"a": 1}"#, "got an unexpected keyword argument 'a'"),
        ("one", "[]", "{}", "missing 1 required positional argument: 'x'"),
        ("one", "[1, 2]", "{}", "takes 1 positional argument but 2 were given"),
        ("two", "[1]", "{}", "missing 1 required positional argument: 'y'"),
        ("two", "[]", r#"{"y": 1}"#, "missing 1 required positional argument: 'x'"),
        ("two", "[]", "{}", "missing 2 required positional arguments: 'x' and 'y'"),
        ("two", "[1, 2, 3]", "{}", "takes 2 positional arguments but 3 were given"),
        ("two", "[1, 2]", r#"{"z": 3}"#, "got an unexpected keyword argument 'z'"),
        ("two", "[1, 2]", r#"{"x": 3}"#, "got multiple values for argument 'x'"),
        // Several things wrong: what CPython reports first.
        ("two", "[1, 2, 3]", r#"{"z": 3}"#, "got an unexpected keyword argument 'z'"),
        ("two", "[1, 2, 3]", r#"{"x": 3}"#, "got multiple values for argument 'x'"),
        ("two", "[]", r#"{"weird key": 1}"#, "got an unexpected keyword argument 'weird key'"),
        ("three", "[]", "{}", "missing 3 required positional arguments: 'a', 'b', and 'c'"),
        ("four", "[]", "{}", "missing 4 required positional arguments: 'a', 'b', 'c', and 'd'"),
        ("four", "[1]", r#"{"c": 1}"#, "missing 2 required positional arguments: 'b' and 'd'"),
        ("defaulted", "[]", "{}", "missing 1 required positional argument: 'x'"),
        ("defaulted", "[1, 2, \"a\", 4]", "{}", "takes from 1 to 3 positional arguments but 4 were given"),
        ("optional", "[1, 2, 3]", "{}", "takes from 0 to 2 positional arguments but 3 were given"),
        ("keyword_only", "[]", "{}", "missing 1 required positional argument: 'x'"),
        ("keyword_only", "[1, 2, 3]", "{}", "missing 1 required keyword-only argument: 'y'"),
        ("required_keywords", "[1]", "{}", "missing 2 required keyword-only arguments: 'y' and 'z'"),
        ("named", "[1]", r#"{"x": 1}"#, "got multiple values for argument 'x'"),
        ("structured", "[]", "{}", "missing 3 required positional arguments: 'size', 'type', and 'factor'"),
        ("structured", "[1, 2, 3, 4]", "{}", "takes 3 positional arguments but 4 were given"),
    ] {
        fails(task, args, kwargs, wanted);
    }
}

#[test]
fn arguments_of_the_wrong_type_are_named() {
    for (task, args, kwargs, wanted) in [
        (
            "one",
            "[\"1\"]",
            "{}",
            "argument 'x' is of the wrong type: invalid type: string \"1\", expected i64 (got \"1\")",
        ),
        (
            "one",
            "[1.5]",
            "{}",
            "argument 'x' is of the wrong type: invalid type: floating point `1.5`, expected i64 (got 1.5)",
        ),
        (
            "two",
            "[1]",
            r#"{"y": null}"#,
            "argument 'y' is of the wrong type: invalid type: null, expected i64 (got null)",
        ),
        (
            "three",
            "[1, 2, 256]",
            "{}",
            "argument 'c' is of the wrong type: invalid value: integer `256`, expected u8 (got 256)",
        ),
        (
            "structured",
            "[{\"width\": 1}, \"\", 1]",
            "{}",
            "argument 'size' is of the wrong type: missing field `height` (got {\"width\": 1})",
        ),
        (
            "keyword_only",
            "[1, 2, \"x\"]",
            r#"{"y": 1}"#,
            "argument '*args' is of the wrong type: invalid type: string \"x\", expected i64 (got [2,\"x\"])",
        ),
        (
            "named",
            "[1]",
            r#"{"a": true}"#,
            "argument '**kwargs' is of the wrong type: invalid type: boolean `true`, expected i64 (got {\"a\":true})",
        ),
    ] {
        // serde calls the absence of a value "unit value" or "null", by version.
        let error = call(task, args, kwargs).unwrap_err().to_string().replace("unit value", "null");
        assert_eq!(error, format!("TypeError: {task}() {wanted}"));
    }
}

#[test]
fn a_long_argument_is_cut_in_the_error() {
    let error = call("one", &format!("[\"{}\"]", "é".repeat(500)), "{}").unwrap_err().to_string();
    assert!(error.ends_with("ééé…)"), "{error}");
}

#[test]
fn right_calls_reach_the_function() {
    for (task, args, kwargs, wanted) in [
        ("none", "[]", "{}", "null"),
        ("two", "[1, 2]", "{}", "[1,2]"),
        ("two", "[1]", r#"{"y": 2}"#, "[1,2]"),
        ("two", "[]", r#"{"y": 2, "x": 1}"#, "[1,2]"),
        // As in Python's JSON, the last of two members counts.
        ("one", "[]", r#"{"x": 1, "x": 2}"#, "2"),
        ("defaulted", "[1]", "{}", "\"1 5 no\""),
        ("defaulted", "[1]", r#"{"text": "yes"}"#, "\"1 5 yes\""),
        ("optional", "[]", "{}", "[0,null]"),
        ("optional", "[]", r#"{"y": 3}"#, "[0,3]"),
        ("optional", "[7, null]", "{}", "[7,null]"),
        ("keyword_only", "[1, 2, 3]", r#"{"y": 4}"#, "[1,[2,3],4,1]"),
        ("keyword_only", "[1]", r#"{"z": 5, "y": 4}"#, "[1,[],4,5]"),
        ("required_keywords", "[1, 2, 3]", r#"{"z": 5, "y": 4}"#, "15"),
        ("catch_all", "[1, \"a\"]", r#"{"b": [null]}"#, r#"[[1,"a"],{"b":[null]}]"#),
        ("named", "[1]", r#"{"y": 2, "z": 3}"#, "6"),
        (
            "structured",
            r#"[{"width": 2, "height": 3}, "structured"]"#,
            r#"{"factor": 1}"#,
            r#"{"width":4,"height":6}"#,
        ),
        (
            "structured",
            r#"[{"width": 2, "height": 3}]"#,
            r#"{"factor": 1, "type": "x"}"#,
            r#"{"width":2,"height":3}"#,
        ),
        ("raw", "[1, [NaN]]", "{}", "\"rwork.raw [1, [NaN]]\""),
        ("other.name", "[NaN]", "{}", "NaN"),
        ("other.name", "[1e400]", "{}", "Infinity"),
    ] {
        assert_eq!(call(task, args, kwargs).unwrap(), wanted, "{task} {args} {kwargs}");
    }
}

#[test]
fn tasks_stay_plain_functions() {
    assert_eq!(two(1, 2), (1, 2));
    assert_eq!(defaulted(1, 2, "three"), "1 2 three");
    assert_eq!(nested::task(0.5), 0.5);
}

#[test]
fn an_unknown_task_is_not_registered() {
    let error = call("nothing", "[]", "{}").unwrap_err();
    assert_eq!((error.exc_module(), error.exc_type()), (Some("celery.exceptions"), Some("NotRegistered")));
    assert_eq!(error.exc_args(), Some("[\"rwork.nothing\"]"));
}

#[test]
fn what_is_no_call_in_json_is_a_decode_error() {
    for (args, kwargs) in [("[1", "{}"), ("[]", "[]"), ("{}", "{}"), ("", "{}"), ("[]", "{\"a\": 1")] {
        let error = call("one", args, kwargs).unwrap_err();
        assert_eq!(
            (error.exc_module(), error.exc_type()),
            (Some("kombu.exceptions"), Some("DecodeError")),
            "{args} {kwargs}"
        );
    }
}
