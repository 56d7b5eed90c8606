//! Values as a person wants to see them: text plain, scalars as they are, small tables, JSON for the rest.
//!
//! Bytes are told by their size and type ([`blob`]); flat objects and lists of alike objects become tables; everything else
//! is JSON that uses the line ([`json`]). Nothing here prints.

pub(crate) mod blob;
pub(crate) mod json;

use rwork_protocol::json::Value;

pub(crate) use blob::Blob;

/// Rows of a table beyond which JSON is the better form.
const ROWS_MAX: usize = 200;
/// Columns beyond which a table does not fit a terminal.
const COLUMNS_MAX: usize = 8;
/// Longest text in a table, in characters.
const CELL_MAX: usize = 60;

/// A value ready to be printed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shown {
    /// Text of a task: to be tamed if a terminal reads it.
    Text(String),
    /// One line or many, already tame.
    Lines(String),
    /// A name and a value on each line.
    Pairs(Vec<(String, String)>),
    /// Rows under a head.
    Table(Vec<String>, Vec<Vec<String>>),
}

/// How a value is best shown.
pub(crate) fn show(value: &Value) -> Shown {
    if let Some(blob) = Blob::of(value) {
        return Shown::Lines(blob.to_string());
    }
    match value {
        Value::String(text) => Shown::Text(text.clone()),
        Value::Object(entries) => pairs(entries).map_or_else(|| Shown::Lines(readable(value)), Shown::Pairs),
        Value::Array(elements) => table(elements).unwrap_or_else(|| Shown::Lines(readable(value))),
        scalar => Shown::Lines(json::compact(scalar)),
    }
}

/// JSON laid out, with bytes told by their size and type.
pub(crate) fn readable(value: &Value) -> String {
    json::pretty(&without_bytes(value))
}

fn without_bytes(value: &Value) -> Value {
    if let Some(blob) = Blob::of(value) {
        return Value::String(format!("<{blob}>"));
    }
    match value {
        Value::Array(elements) => Value::Array(elements.iter().map(without_bytes).collect()),
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(name, value)| (name.clone(), without_bytes(value))).collect())
        }
        scalar => scalar.clone(),
    }
}

/// An object of cells.
fn pairs(entries: &[(String, Value)]) -> Option<Vec<(String, String)>> {
    if entries.is_empty() {
        return None;
    }
    entries.iter().map(|(name, value)| Some((cell_text(name)?, cell(value)?))).collect()
}

/// A list of objects with the same keys in the same order, each value a cell.
fn table(elements: &[Value]) -> Option<Shown> {
    let Some(Value::Object(first)) = elements.first() else { return None };
    let head: Vec<String> = first.iter().map(|(name, _)| name.clone()).collect();
    if elements.len() > ROWS_MAX || head.is_empty() || head.len() > COLUMNS_MAX {
        return None;
    }
    let rows = elements
        .iter()
        .map(|element| match element {
            Value::Object(entries) if entries.iter().map(|(name, _)| name).eq(head.iter()) => {
                entries.iter().map(|(_, value)| cell(value)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let head = head.iter().map(|name| cell_text(name)).collect::<Option<Vec<_>>>()?;
    Some(Shown::Table(head, rows))
}

/// A value that fits a cell: a scalar, bytes, text that is short and on one line, a short list of numbers.
fn cell(value: &Value) -> Option<String> {
    if let Some(blob) = Blob::of(value) {
        return Some(blob.to_string());
    }
    match value {
        Value::String(text) => cell_text(text),
        Value::Array(elements) if elements.iter().all(is_number) => cell_text(&json::compact(value)),
        Value::Array(_) | Value::Object(_) => None,
        scalar => Some(json::compact(scalar)),
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::BigInt(_) | Value::Float(_))
}

fn cell_text(text: &str) -> Option<String> {
    let fits = text.chars().count() <= CELL_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Shown {
        show(&Value::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn scalars_are_shown_as_they_are() {
        assert_eq!(shown("4"), Shown::Lines("4".into()));
        assert_eq!(shown("4.0"), Shown::Lines("4.0".into()));
        assert_eq!(shown("null"), Shown::Lines("null".into()));
        assert_eq!(shown("\"a b\""), Shown::Text("a b".into()));
        assert_eq!(
            shown("123456789012345678901234567890"),
            Shown::Lines("123456789012345678901234567890".into())
        );
    }

    #[test]
    fn flat_objects_are_pairs_and_others_json() {
        assert_eq!(
            shown(r#"{"words": 7, "name": "x"}"#),
            Shown::Pairs(vec![("words".into(), "7".into()), ("name".into(), "x".into())])
        );
        assert_eq!(shown("{}"), Shown::Lines("{}".into()));
        assert_eq!(shown(r#"{"a": [1, 2]}"#), Shown::Pairs(vec![("a".into(), "[1, 2]".into())]));
        assert_eq!(shown(r#"{"a": ["b"]}"#), Shown::Lines("{\"a\": [\"b\"]}".into()));
        assert_eq!(shown(r#"{"a": "x\u001b[31m"}"#), Shown::Lines(r#"{"a": "x\u001b[31m"}"#.into()));
    }

    #[test]
    fn alike_objects_are_a_table() {
        let table = shown(r#"[{"w": "a", "n": 2}, {"w": "b", "n": 1}]"#);
        let rows = vec![vec!["a".to_owned(), "2".to_owned()], vec!["b".to_owned(), "1".to_owned()]];
        assert_eq!(table, Shown::Table(vec!["w".into(), "n".into()], rows));
        assert!(matches!(shown(r#"[{"w": "a"}, {"n": 1}]"#), Shown::Lines(_)));
        assert_eq!(shown("[1, 2]"), Shown::Lines("[1, 2]".into()));
    }

    #[test]
    fn bytes_are_told_by_size_and_type() {
        let shown = shown(r#"{"data": {"__type__": "base64", "__value__": "aGk="}, "n": 1}"#);
        let expect =
            vec![("data".to_owned(), "2 bytes of text".to_owned()), ("n".to_owned(), "1".to_owned())];
        assert_eq!(shown, Shown::Pairs(expect));
        let nested = self::shown(r#"{"data": [{"__type__": "base64", "__value__": "aGk="}]}"#);
        assert_eq!(nested, Shown::Lines(r#"{"data": ["<2 bytes of text>"]}"#.into()));
    }
}
