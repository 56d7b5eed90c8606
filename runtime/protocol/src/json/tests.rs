//! The dialect, the slices, and what no input may do.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn values_are_checked() {
    for bad in [
        "",
        " ",
        "nul",
        "[1,]",
        "{\"a\" 1}",
        "[1] 2",
        "\"\\ud800\"",
        "\"a",
        "{1: 2}",
        "'a'",
        "[1 2]",
        "+1",
        ".5",
        "nan",
        "-",
        "\u{feff}1",
    ] {
        assert!(check(bad.as_bytes()).is_err(), "{bad}");
    }
    for (good, kind) in [
        ("null", Kind::Null),
        (" [NaN, Infinity, -Infinity] ", Kind::Array),
        ("1e400", Kind::Number),
        ("123456789012345678901234567890", Kind::Number),
        ("NaN", Kind::Number),
        ("{\"a\": 1, \"a\": 2}", Kind::Object),
        ("\"\\ud83d\\ude00\"", Kind::String),
        ("false", Kind::Bool),
    ] {
        assert_eq!(check(good.as_bytes()), Ok(kind), "{good}");
    }
    assert_eq!(check(b"[\"\xff\"]").unwrap_err().to_string(), "expected UTF-8 at byte 2");
}

#[test]
fn nesting_ends_somewhere() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(Kind::Array));
    assert!(check(nested(DEPTH_MAX + 2).as_bytes()).is_err());
    assert!(Value::parse(nested(100_000).as_bytes()).is_err());
    assert!(elements(&bytes(&nested(100_000))).is_err());
}

#[test]
fn elements_and_entries_are_the_very_bytes() {
    let found = elements(&bytes(" [ 1.50 ,\"a, b\", {\"x\": [ ]} ] ")).unwrap();
    assert_eq!(found, [bytes("1.50"), bytes("\"a, b\""), bytes("{\"x\": [ ]}")]);
    assert_eq!(elements(&bytes("[ ]")).unwrap(), Vec::<Bytes>::new());
    assert!(elements(&bytes("{}")).is_err());
    assert!(elements(&bytes("[1] x")).is_err());

    let found = entries(&bytes("{\"a\": 1, \"b\": 2, \"a\" : 3}")).unwrap();
    assert_eq!(found, [("b".to_owned(), bytes("2")), ("a".to_owned(), bytes("3"))]);
    assert!(entries(&bytes("[]")).is_err());
    let many: Vec<_> = (0..100).map(|n| (format!("k{}", n % 40), bytes(&n.to_string()))).collect();
    let kept = entries(&object_of(&many)).unwrap();
    assert_eq!(kept.len(), 40);
    assert_eq!(kept.last().unwrap(), &("k19".to_owned(), bytes("99")));
}

#[test]
fn arrays_and_objects_are_put_together() {
    let one = [bytes("1")];
    assert_eq!(prepend(&bytes(" [ ] "), &one).unwrap(), "[1]");
    assert_eq!(prepend(&bytes("[ 2, 3 ]"), &one).unwrap(), "[1, 2, 3]");
    assert_eq!(append(&bytes("[2]"), &one).unwrap(), "[2, 1]");
    assert_eq!(append(&bytes("[2]"), &Vec::<Bytes>::new()).unwrap(), "[2]");
    assert_eq!(
        prepend(&bytes("{}"), &one).unwrap_err().to_string(),
        "expected an array, found an object at byte 0"
    );
    assert_eq!(array_of::<Bytes>(&[]), "[]");
    let merged = merge(&bytes("{\"a\": 1, \"b\": 2}"), &bytes("{\"b\": 3, \"c\": 4}")).unwrap();
    assert_eq!(merged, "{\"a\": 1, \"b\": 3, \"c\": 4}");
    assert!(merge(&bytes("[]"), &bytes("{\"a\": 1}")).is_err());
    assert!(is_empty(b" { } ") && is_empty(b"[]") && !is_empty(b"[1]") && is_null(b" null"));
}

#[test]
fn scalars_are_written_as_python_writes_them() {
    for (value, text) in [
        (Value::Float(1.0), "1.0"),
        (Value::Float(-0.0), "-0.0"),
        (Value::Float(1e16), "1e+16"),
        (Value::Float(1.5e-5), "1.5e-05"),
        (Value::Float(1e300), "1e+300"),
        (Value::Float(0.1), "0.1"),
        (Value::Float(123456789012345.0), "123456789012345.0"),
        (Value::Float(f64::NAN), "NaN"),
        (Value::Float(f64::NEG_INFINITY), "-Infinity"),
        (Value::String("a\"\\\n\t\u{7f}é\u{1f600}".to_owned()), r#""a\"\\\n\t\u007f\u00e9\ud83d\ude00""#),
        (Value::BigInt("-123456789012345678901234567890".to_owned()), "-123456789012345678901234567890"),
    ] {
        assert_eq!(value.to_string(), text);
    }
}

#[test]
fn parsing_keeps_numbers_and_takes_the_last_key() {
    let parsed =
        Value::parse(br#"{"a": 1, "n": 123456789012345678901234567890, "f": 2.0, "a": null}"#).unwrap();
    assert_eq!(parsed.to_string(), r#"{"n": 123456789012345678901234567890, "f": 2.0, "a": null}"#);
    assert_eq!(parsed.get("a"), Some(&Value::Null));
    assert_eq!(Value::parse(b"1e400").unwrap(), Value::Float(f64::INFINITY));
    assert_eq!(Value::parse(b"\"x\"").unwrap().as_str(), Some("x"));
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>()
            .prop_filter("not a number is not equal", |number| !number.is_nan())
            .prop_map(Value::Float),
        "[1-9][0-9]{19,60}".prop_map(Value::BigInt),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Text that looks like JSON often enough to reach deep into a parser.
pub(crate) fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "\"",
            "null",
            "true",
            "NaN",
            "-Infinity",
            "1",
            "1e9",
            "\\u",
            "\\ud800",
            " ",
            "\"task\"",
            "\"id\"",
            "\"args\"",
            "\"kwargs\"",
            "\"a\"",
            "[]",
            "{}",
            "\"callbacks\"",
            "\"options\"",
            "\"eta\"",
            "\"status\"",
            "\"SUCCESS\"",
            "\"result\"",
            "\"task_id\"",
            "\"timelimit\"",
            "\"tasks\"",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in value()) {
        prop_assert_eq!(Value::parse(&value.to_bytes()).unwrap(), value.clone());
        prop_assert!(value.to_bytes().is_ascii());
        prop_assert!(check(&value.to_bytes()).is_ok());
    }

    #[test]
    fn slices_put_together_are_the_whole(elements_in in prop::collection::vec(value(), 0..6)) {
        let array = Value::Array(elements_in.clone()).to_bytes();
        let slices = elements(&array).unwrap();
        prop_assert_eq!(&array_of(&slices), &array);
        let (first, rest) = slices.split_at(slices.len() / 2);
        prop_assert_eq!(&prepend(&array_of(rest), first).unwrap(), &array);
        prop_assert_eq!(&append(&array_of(first), rest).unwrap(), &array);
    }

    #[test]
    fn no_input_panics(soup in soup()) {
        let soup = Bytes::from(soup);
        let checked = check(&soup);
        prop_assert_eq!(checked.is_ok(), Value::parse(&soup).is_ok());
        prop_assert_eq!(checked == Ok(Kind::Array), elements(&soup).is_ok());
        prop_assert_eq!(checked == Ok(Kind::Object), entries(&soup).is_ok());
        prop_assert_eq!(checked == Ok(Kind::String), text(&soup).is_ok());
        let _ = (merge(&soup, &soup), prepend(&soup, std::slice::from_ref(&soup)), is_empty(&soup));
        let _ = (crate::repr::args(&soup), crate::repr::kwargs(&soup), crate::repr::value(&soup));
    }
}
