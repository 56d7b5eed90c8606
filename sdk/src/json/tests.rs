//! The reader and the writer against tables of texts, and against serde_json where both know the same JSON.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{elements, from_str, members, to_string};
use crate::Bytes;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i8, i8),
    Box { width: u32, height: Option<u32> },
}

fn fails<T: DeserializeOwned + Debug>(text: &str, wanted: &str) {
    let error = from_str::<T>(text).unwrap_err().to_string();
    assert!(error.contains(wanted), "{text}: {error}");
}

#[test]
fn text_that_is_not_json_is_refused() {
    for (text, wanted) in [
        ("", "the value is cut off at byte 0"),
        ("  ", "the value is cut off at byte 2"),
        ("tru", "expected a value at byte 0"),
        ("[1,", "the value is cut off"),
        ("[1 2]", "expected `,` at byte 3"),
        ("[1,]", "expected a value"),
        ("{\"a\" 1}", "expected `:` at byte 5"),
        ("{a: 1}", "expected a string at byte 1"),
        ("\"abc", "the string is cut off"),
        ("\"a\\", "the string is cut off"),
        ("\"a\nb\"", "control character in a string"),
        ("\"\\x\"", "unknown escape"),
        ("\"\\u12\"", "a `\\u` escape that is no character"),
        ("\"\\ud800\"", "a `\\u` escape that is no character"),
        ("\"\\ud800\\u0041\"", "a `\\u` escape that is no character"),
        ("01", "a number that is not JSON"),
        ("1.", "a number that is not JSON"),
        ("+1", "expected a value"),
        ("1e", "a number that is not JSON"),
        ("-", "a number that is not JSON"),
        ("--1", "a number that is not JSON"),
        ("1 2", "more after the end of the value at byte 2"),
        ("nan", "expected a value"),
    ] {
        fails::<Value>(text, wanted);
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(from_str::<Value>(&deep(120)).is_ok());
    fails::<Value>(&deep(200), "nested too deeply");
    // Also where nothing is decoded.
    assert!(elements(&format!("[{}]", deep(200))).unwrap_err().to_string().contains("nested too deeply"));
}

#[test]
fn numbers_keep_their_kind_and_size() {
    assert!(from_str::<f64>("NaN").unwrap().is_nan());
    assert_eq!(from_str::<f64>("Infinity").unwrap(), f64::INFINITY);
    assert_eq!(from_str::<f64>("-Infinity").unwrap(), f64::NEG_INFINITY);
    assert_eq!(from_str::<f64>("1e400").unwrap(), f64::INFINITY);
    assert_eq!(from_str::<f64>("3").unwrap(), 3.0);
    assert_eq!(from_str::<Vec<f64>>("[NaN, 1.5 ,-Infinity]").unwrap()[1..], [1.5, f64::NEG_INFINITY]);
    assert_eq!(from_str::<u64>("18446744073709551615").unwrap(), u64::MAX);
    assert_eq!(from_str::<i64>("-9223372036854775808").unwrap(), i64::MIN);
    assert_eq!(from_str::<i128>("-170141183460469231731687303715884105728").unwrap(), i128::MIN);
    assert_eq!(from_str::<u128>("340282366920938463463374607431768211455").unwrap(), u128::MAX);
    fails::<i64>("9223372036854775808", "invalid value: integer `9223372036854775808`, expected i64");
    fails::<i64>("1.0", "invalid type: floating point `1.0`, expected i64");
    fails::<i64>("NaN", "invalid type: floating point `NaN`, expected i64");
    fails::<Value>("1234567890123456789012345678901234567890123", "needs more than 128 bits");
}

#[test]
fn strings_are_unescaped() {
    assert_eq!(from_str::<&str>("\"plain \u{e9}\"").unwrap(), "plain \u{e9}");
    assert_eq!(
        from_str::<String>(r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00x""#).unwrap(),
        "\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}x"
    );
}

#[test]
fn enums_options_and_maps_are_read() {
    assert_eq!(from_str::<Shape>("\"Point\"").unwrap(), Shape::Point);
    assert_eq!(from_str::<Shape>("{\"Circle\": 2}").unwrap(), Shape::Circle(2.0));
    assert_eq!(from_str::<Shape>("{\"Line\": [1, -1]}").unwrap(), Shape::Line(1, -1));
    assert_eq!(
        from_str::<Shape>("{\"Box\": {\"width\": 3}}").unwrap(),
        Shape::Box { width: 3, height: None }
    );
    fails::<Shape>("{\"Square\": 1}", "unknown variant `Square`");
    assert_eq!(from_str::<Option<u8>>("null").unwrap(), None);
    let keys = from_str::<BTreeMap<i32, bool>>("{\"1\": true, \"-2\": false}").unwrap();
    assert_eq!(keys, BTreeMap::from([(1, true), (-2, false)]));
}

#[test]
fn kombus_typed_values_are_what_they_carry() {
    for (text, wanted) in [
        (
            r#"{"__type__": "datetime", "__value__": "2026-01-02T03:04:05+00:00"}"#,
            "2026-01-02T03:04:05+00:00",
        ),
        (r#"{"__type__": "decimal", "__value__": "1.50"}"#, "1.50"),
        (r#"{"__value__": {"hex": "00ff"}, "__type__": "uuid"}"#, "00ff"),
        (r#"{"__type__": "bytes", "__value__": "abc"}"#, "abc"),
        (r#"{"__type__": "base64", "__value__": "YWJj"}"#, "abc"),
    ] {
        assert_eq!(from_str::<String>(text).unwrap(), wanted);
    }
    fails::<String>(r#"{"__type__": "date", "other": 1}"#, "invalid type: map, expected a string");
    fails::<String>(r#"{"a": 1}"#, "invalid type: map, expected a string");
}

#[test]
fn bytes_come_in_three_ways_and_leave_in_one() {
    for text in [r#"{"__type__": "base64", "__value__": "/wE="}"#, "\"/wE=\"", "[255, 1]"] {
        let bytes = from_str::<Bytes>(text).unwrap();
        assert_eq!(bytes.0, [255, 1], "{text}");
        assert_eq!(to_string(&bytes).unwrap(), r#"{"__type__":"base64","__value__":"/wE="}"#);
    }
    assert_eq!(from_str::<Bytes>(r#"{"__type__": "bytes", "__value__": "abc"}"#).unwrap().0, b"abc");
    fails::<Bytes>("\"not base64!\"", "expected base64");
    fails::<Bytes>(r#"{"__type__": "date", "__value__": "2026-01-01"}"#, "expected bytes, got a `date`");
    fails::<Bytes>("7", "expected bytes (base64, or kombu's typed value)");
}

#[test]
fn arrays_and_objects_fall_apart_without_being_decoded() {
    assert_eq!(
        elements(" [ 1, \"a,]\" , {\"b\": [2, 3]}, -Infinity ] ").unwrap(),
        ["1", "\"a,]\"", "{\"b\": [2, 3]}", "-Infinity"]
    );
    assert!(elements("[]").unwrap().is_empty() && members("{ }").unwrap().is_empty());
    let found = members(r#"{"a": 1, "\u0062": [ ], "a": null}"#).unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
    assert_eq!(found, [("a", "1"), ("b", "[ ]"), ("a", "null")]);
    for text in ["1", "{}", "[1", "[1]]", "[1,]", "[,1]"] {
        assert!(elements(text).is_err(), "{text}");
    }
}

#[test]
fn what_json_lacks_is_written_as_python_does() {
    let floats = [1.0, 0.1, -2.5e-7, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    assert_eq!(to_string(&floats).unwrap(), "[1.0,0.1,-2.5e-7,1e300,NaN,Infinity,-Infinity]");
    assert_eq!(to_string(&(f32::NAN, 0.1_f32)).unwrap(), "[NaN,0.1]");
    assert_eq!(to_string(&(u64::MAX, i128::MIN)).unwrap(), format!("[{},{}]", u64::MAX, i128::MIN));
    assert_eq!(to_string("a\"\\\n\u{1}\u{e9}").unwrap(), "\"a\\\"\\\\\\n\\u0001\u{e9}\"");
    assert_eq!(to_string(&()).unwrap(), "null");
    assert_eq!(to_string(&BTreeMap::from([((), 1)])).unwrap(), "{\"null\":1}");
    assert!(to_string(&BTreeMap::from([([1], 1)])).unwrap_err().to_string().contains("keys must be strings"));
}

#[test]
fn enums_are_written_as_serde_json_does() {
    for shape in [Shape::Point, Shape::Circle(1.5), Shape::Line(1, -1), Shape::Box { width: 1, height: None }]
    {
        assert_eq!(to_string(&shape).unwrap(), serde_json::to_string(&shape).unwrap());
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON", |number| number.is_finite()).prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_alike(value in any_value()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            prop_assert_eq!(&from_str::<Value>(&text).unwrap(), &value);
        }
    }

    #[test]
    fn what_is_written_is_read_by_serde_json(value in any_value()) {
        prop_assert_eq!(serde_json::from_str::<Value>(&to_string(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn no_text_breaks_the_reader(text in "[\\[\\]{}:,\"\\\\ u0-9eE+.aNI-]{0,40}") {
        let ours = from_str::<Value>(&text);
        if let Ok(theirs) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(ours.unwrap(), theirs);
        }
        _ = elements(&text);
        _ = members(&text);
    }
}
