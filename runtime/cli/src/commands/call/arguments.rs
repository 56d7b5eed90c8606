//! What stands behind the task's name on the command line, as JSON.
//!
//! Each word is one JSON value; what is no JSON is text; `@path` is the bytes of a file, `@@text` text with one `@`.

use std::path::Path;

use bytes::Bytes;
use rwork_protocol::json::{self, Kind};

use crate::failure::Failure;
use crate::render::Blob;

/// Largest file that is sent: what a message may weigh (16 MiB), as base64.
const FILE_BYTES_MAX: u64 = 12 << 20;

/// The positional arguments: one JSON array.
pub(crate) fn positional(words: &[String]) -> Result<Bytes, Failure> {
    let values = words.iter().map(|word| value(word)).collect::<Result<Vec<_>, _>>()?;
    Ok(json::array_of(&values))
}

/// The keyword arguments: one JSON object, with `NAME=VALUE` pairs over it.
pub(crate) fn keywords(object: Option<&str>, pairs: &[String]) -> Result<Bytes, Failure> {
    let base = match object {
        Some(text) => checked_object(text)?,
        None => Bytes::from_static(b"{}"),
    };
    let entries = pairs.iter().map(|pair| keyword(pair)).collect::<Result<Vec<_>, _>>()?;
    json::merge(&base, &json::object_of(&entries)).map_err(|error| bad_json("`--kwargs`", &error))
}

/// `NAME=VALUE` with a name and a value as a positional argument has one.
pub(crate) fn keyword(pair: &str) -> Result<(String, Bytes), Failure> {
    match pair.split_once('=') {
        Some((name, word)) if !name.is_empty() => Ok((name.to_owned(), value(word)?)),
        _ => Err(Failure::usage(format!("expected `NAME=VALUE`, got `{pair}`"))),
    }
}

fn checked_object(text: &str) -> Result<Bytes, Failure> {
    match json::check(text.as_bytes()) {
        Ok(Kind::Object) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Ok(kind) => Err(Failure::usage(format!("expected `--kwargs` to be one JSON object, got {kind}"))
            .hint("for example --kwargs '{\"x\": 2}', or -k x=2")),
        Err(error) => Err(bad_json("`--kwargs`", &error)),
    }
}

fn value(word: &str) -> Result<Bytes, Failure> {
    if let Some(rest) = word.strip_prefix('@') {
        return if rest.starts_with('@') { Ok(json::string(rest)) } else { file(Path::new(rest)) };
    }
    match json::check(word.as_bytes()) {
        Ok(_) => Ok(Bytes::copy_from_slice(word.trim().as_bytes())),
        // A word that begins like JSON and isn't is a slip, not text.
        Err(error) if word.trim_start().starts_with(['[', '{', '"']) => {
            Err(bad_json(&format!("`{word}`"), &error))
        }
        Err(_) => Ok(json::string(word)),
    }
}

fn file(path: &Path) -> Result<Bytes, Failure> {
    let failed = |error: std::io::Error| {
        Failure::usage(format!("failed to read the argument `@{}`", path.display()))
            .because(error)
            .hint("`@path` sends a file's bytes; write `@@` for text that begins with `@`")
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        let name = path.display();
        return Err(Failure::usage(format!(
            "expected `{name}` to be at most {FILE_BYTES_MAX} bytes, got {size}"
        ))
        .hint("grant the plugin a directory instead, and send the file's name"));
    }
    std::fs::read(path).map(|bytes| Blob(bytes).to_json()).map_err(failed)
}

fn bad_json(what: &str, error: &json::Error) -> Failure {
    Failure::usage(format!("expected {what} to be JSON: {error}")).hint(
        "quote it for the shell ('[1, 2]'); for plain text that begins like JSON, write it as a JSON string",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_json_or_text() {
        let check = |word: &str, expect: &str| assert_eq!(value(word).unwrap(), expect, "{word}");
        check("2", "2");
        check(" 2 ", "2");
        check("1e400", "1e400");
        check("NaN", "NaN");
        check("true", "true");
        check("[1, \"a\"]", "[1, \"a\"]");
        check("hello world", "\"hello world\"");
        check("", "\"\"");
        check("./README.md", "\"./README.md\"");
        check("12abc", "\"12abc\"");
        check("@@home", "\"@home\"");
    }

    #[test]
    fn slips_are_not_taken_as_text() {
        for word in ["[1, 2", "{\"a\": }", "\"open", "['a']"] {
            assert!(value(word).unwrap_err().to_string().contains("to be JSON"), "{word}");
        }
        assert!(value("@/no/such/file").unwrap_err().to_string().contains("failed to read"));
        assert!(keyword("x").is_err());
        assert!(keyword("=1").is_err());
    }

    #[test]
    fn a_file_becomes_typed_bytes() {
        let path = std::env::temp_dir().join(format!("rwork-argument-{}", std::process::id()));
        std::fs::write(&path, b"hi").unwrap();
        let value = value(&format!("@{}", path.display())).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(value, r#"{"__type__": "base64", "__value__": "aGk="}"#);
    }

    #[test]
    fn pairs_go_over_the_object() {
        let merged = keywords(Some(r#"{"x": 1, "y": 2}"#), &["x=3".into(), "z=a b".into()]).unwrap();
        assert_eq!(Value::parse(&merged).unwrap(), Value::parse(br#"{"x": 3, "y": 2, "z": "a b"}"#).unwrap());
        assert!(keywords(Some("[1]"), &[]).unwrap_err().to_string().contains("one JSON object, got"));
        assert!(keywords(Some("{"), &[]).unwrap_err().to_string().contains("to be JSON"));
    }

    use rwork_protocol::json::Value;
}
