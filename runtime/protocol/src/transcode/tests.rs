//! What Python's own libraries write and read, and what no input may do. `tests/golden/make.py` made the vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use rmp::encode;

use super::*;
use crate::json::Value;
use crate::json::tests::value;

const CAP: usize = 1 << 20;

type Transcode = fn(&[u8], usize) -> Result<Bytes, TranscodeError>;

/// The same value whatever the order of keys and the spacing. Not a number is equal to itself here.
fn canonical(value: Value) -> String {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Array(elements) => Value::Array(elements.into_iter().map(sorted).collect()),
            Value::Object(entries) => {
                let mut entries: Vec<_> =
                    entries.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
                Value::Object(entries)
            }
            scalar => scalar,
        }
    }
    sorted(value).to_string()
}

fn check_vectors(vectors: &str, transcode: Transcode) {
    let mut wrong = Vec::new();
    for line in vectors.lines() {
        let (source, expected) = line.split_once('\t').unwrap();
        let source = STANDARD.decode(source).unwrap();
        if DIFFERENT.iter().any(|(different, _)| different.as_bytes() == source) {
            continue;
        }
        let made = match transcode(&source, CAP) {
            Ok(json) => canonical(Value::parse(&json).unwrap()),
            Err(_) => "!".to_owned(),
        };
        let expected = match expected {
            "!" => expected.to_owned(),
            json => canonical(Value::parse(json.as_bytes()).unwrap()),
        };
        if made != expected {
            wrong.push(format!("{:?}: {made}, expected {expected}", String::from_utf8_lossy(&source)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn msgpack_is_read_as_python_reads_it() {
    check_vectors(include_str!("../../tests/golden/msgpack.tsv"), msgpack::to_json);
}

#[test]
fn yaml_is_read_as_python_reads_it() {
    check_vectors(include_str!("../../tests/golden/yaml.tsv"), yaml::to_json);
}

/// YAML that PyYAML reads otherwise, and what is made of it here: it knows ordered maps, which JSON would lose, refuses an
/// anchor that is defined twice, and a tab before the first token. No dumper writes any of these.
const DIFFERENT: [(&str, &str); 3] =
    [("!!omap [a: 1]", "!"), ("[&a [1], &a [2], *a]", "[[1], [2], [2]]"), ("\t1", "1")];

#[test]
fn what_is_read_otherwise_is_known() {
    for (source, expected) in DIFFERENT {
        let made = yaml::to_json(source.as_bytes(), CAP).map_or("!".into(), |json| json);
        assert_eq!(made, expected, "{source}");
    }
}

/// What Python's msgpack would make of a value.
fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => encode::write_nil(out).unwrap(),
        Value::Bool(truth) => encode::write_bool(out, *truth).unwrap(),
        Value::Int(number) => drop(encode::write_sint(out, *number).unwrap()),
        Value::Float(number) => encode::write_f64(out, *number).unwrap(),
        Value::BigInt(text) | Value::String(text) => encode::write_str(out, text).unwrap(),
        Value::Array(elements) => {
            encode::write_array_len(out, elements.len() as u32).unwrap();
            elements.iter().for_each(|element| pack(element, out));
        }
        Value::Object(entries) => {
            encode::write_map_len(out, entries.len() as u32).unwrap();
            for (key, value) in entries {
                encode::write_str(out, key).unwrap();
                pack(value, out);
            }
        }
    }
}

/// The same value with its large integers as text: msgpack has none.
fn without_big(value: Value) -> Value {
    match value {
        Value::BigInt(digits) => Value::String(digits),
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_big).collect()),
        Value::Object(entries) => {
            Value::Object(entries.into_iter().map(|(key, value)| (key, without_big(value))).collect())
        }
        scalar => scalar,
    }
}

#[test]
fn msgpack_ends_where_it_must() {
    for (source, text) in [
        (&b""[..], "expected a whole value, found its beginning"),
        (b"\xdd\xff\xff\xff\xff", "found its beginning"),
        (b"\xdf\xff\xff\xff\xff", "found its beginning"),
        (b"\xc6\xff\xff\xff\xffx", "found its beginning"),
        (b"\xdb\xff\xff\xff\xffx", "found its beginning"),
        (b"\x01\x02", "expected nothing after the value at byte 1"),
        (b"\xc1", "the byte 0xc1 at byte 0"),
        (b"\x92\x01\xd4\x01\x02", "a value without extension types, found an extension type at byte 2"),
        (b"\xd6\xff\0\0\0\0", "an extension type"),
        (b"\xa1\xff", "expected text in UTF-8, found other bytes at byte 0"),
        (b"\x81\x91\x01\x01", "a key that is text, a number or a word, found an array"),
        (b"\x81\xc4\x01\xff\x01", "expected a key that is text, found bytes"),
    ] {
        let error = msgpack::to_json(source, CAP).unwrap_err().to_string();
        assert!(error.contains(text), "{source:x?}: {error}");
    }
    let deep = [vec![0x91; DEPTH_MAX + 2], vec![0xc0]].concat();
    assert!(matches!(msgpack::to_json(&deep, CAP), Err(TranscodeError::TooDeep(_))));
    let nils = [b"\xdc\xff\xff".as_slice(), &[0xc0; 65535]].concat();
    assert!(matches!(msgpack::to_json(&nils, 65535 * 6 - 1), Err(TranscodeError::TooLarge(_))));
    assert!(msgpack::to_json(&nils, 65535 * 6).is_ok());
}

#[test]
fn aliases_count_in_full() {
    let mut laughs = "- &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        laughs.push_str(&format!("- &a{n} [{aliases}]\n"));
    }
    assert!(matches!(yaml::to_json(laughs.as_bytes(), CAP), Err(TranscodeError::TooLarge(_))));
    let mut merges = "- &a0 {a: 1, b: 2}\n".to_owned();
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        merges.push_str(&format!("- &a{n} {{k{n}: [{aliases}], <<: [{aliases}]}}\n"));
    }
    assert!(matches!(yaml::to_json(merges.as_bytes(), CAP), Err(TranscodeError::TooLarge(_))));
    // What a merge leaves out counts as well: it was work.
    let base: Vec<String> = (0..500).map(|n| format!("k{n}: 1")).collect();
    let many = vec!["{<<: [*a, *a, *a, *a, *a, *a, *a, *a]}"; 500].join(", ");
    let merged = format!("[&a {{{}}}, {many}]", base.join(", "));
    assert!(matches!(yaml::to_json(merged.as_bytes(), CAP), Err(TranscodeError::TooLarge(_))));
    let anchors = format!("[{}]", "&a 1, ".repeat(200_000));
    let error = yaml::to_json(anchors.as_bytes(), CAP << 4).unwrap_err();
    assert!(error.to_string().contains("at most 100,000 anchors"), "{error}");
    let deep = "[".repeat(100_000);
    assert!(yaml::to_json(deep.as_bytes(), CAP).is_err());
}

/// Text that looks like YAML often enough to reach deep into a reader.
fn yaml_soup() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!binary ",
        "!!str ",
        "!!timestamp ",
        "'",
        "\"",
        "1:30",
        "0x1f",
        "2026-01-02",
        "T03:04:05Z",
        ".inf",
        "1_0.5",
        "? ",
        "|",
        ">",
        "---\n",
        "# x\n",
        "~",
        "=",
        "!",
        "\t",
        "é",
        "99999999999999999999999",
        "0b1",
        "...\n",
        "%YAML 1.1\n",
    ];
    let piece = prop_oneof![prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), "\\PC{0,3}"];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Nothing passes the limit, and what comes out is JSON; aliases may nest it too deep for the parser, which is its own error.
fn check_made(source: &[u8], limit: usize, transcode: Transcode) -> Result<(), TestCaseError> {
    let Ok(json) = transcode(source, limit) else { return Ok(()) };
    prop_assert!(json.len() <= limit);
    match json::check(&json) {
        Err(error) => prop_assert!(error.to_string().contains("recursion"), "{error}"),
        Ok(_) => prop_assert!(json.is_ascii()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn msgpack_comes_through(value in value()) {
        let mut packed = Vec::new();
        pack(&value, &mut packed);
        prop_assert_eq!(Value::parse(&msgpack::to_json(&packed, CAP).unwrap()).unwrap(), without_big(value));
        prop_assert!(msgpack::to_json(&packed[..packed.len() - 1], CAP).is_err());
    }

    #[test]
    fn json_of_text_and_integers_is_yaml(words in prop::collection::vec(("[ -~\u{a1}-\u{2fff}]{0,9}", any::<i64>(), any::<Option<bool>>()), 0..9)) {
        let truth = |truth: Option<bool>| truth.map_or(Value::Null, Value::Bool);
        let list = words.into_iter().map(|(text, number, word)| {
            Value::Array(vec![Value::String(text.clone()), Value::Int(number), truth(word), Value::Object(vec![(text, Value::Int(1))])])
        });
        let value = Value::Array(list.collect());
        prop_assert_eq!(Value::parse(&yaml::to_json(&value.to_bytes(), CAP).unwrap()).unwrap(), value);
    }

    #[test]
    fn no_msgpack_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 0_usize..2000) {
        check_made(&bytes, limit, msgpack::to_json)?;
    }

    #[test]
    fn no_yaml_panics(text in yaml_soup(), other in prop::collection::vec(any::<u8>(), 0..100), limit in 0_usize..2000) {
        check_made(text.as_bytes(), limit, yaml::to_json)?;
        check_made(&other, limit, yaml::to_json)?;
    }
}
