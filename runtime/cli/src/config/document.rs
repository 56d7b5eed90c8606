//! A TOML file as a tree in which every value knows its line, so that an error can name the place.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    /// Line in the file, from 1.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: Value,
}

/// A TOML value. Dates become text: no setting is one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A string, or a date as written.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<Item>),
    /// A table, in the order of its keys.
    Table(Table),
}

/// The entries of a table.
pub(crate) type Table = Vec<Entry>;

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) key: String,
    /// Line of the key, from 1.
    pub(crate) line: usize,
    /// Its value.
    pub(crate) item: Item,
}

/// Why a file is not TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Line, from 1.
    pub(crate) line: usize,
    /// What is wrong, in the parser's words.
    pub(crate) message: String,
}

/// Reads a whole document.
///
/// # Errors
/// When it is not TOML.
pub(crate) fn parse(text: &str) -> Result<Table, Malformed> {
    let lines = Lines(text);
    let table = DeTable::parse(text).map_err(|error| Malformed {
        line: lines.at(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', " "),
    })?;
    lines.table(table.get_ref())
}

struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn at(&self, offset: usize) -> usize {
        self.0.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Table, Malformed> {
        let mut entries: Table = table
            .iter()
            .map(|(key, value)| {
                let line = self.at(key.span().start);
                Ok(Entry { key: key.get_ref().to_string(), line, item: self.item(value)? })
            })
            .collect::<Result<_, _>>()?;
        // The parser sorts keys; people read files from the top.
        entries.sort_by_key(|entry| entry.line);
        Ok(entries)
    }

    fn item(&self, spanned: &Spanned<DeValue<'_>>) -> Result<Item, Malformed> {
        let line = self.at(spanned.span().start);
        let number = |what: &str| Malformed { line, message: format!("{what} is out of range") };
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map(Value::Integer)
                .map_err(|_| number("the number"))?,
            DeValue::Float(float) => Value::Float(float.as_str().parse().map_err(|_| number("the number"))?),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(date) => Value::Text(date.to_string()),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.item(item)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.table(table)?),
        };
        Ok(Item { line, value })
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::List(_) => f.write_str("[…]"),
            Self::Table(_) => f.write_str("{…}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let table = parse("a = 1\n\n[b]\nc = [\n  \"x\",\n  \"y\",\n]\nd = 0x1f\n").unwrap();
        assert_eq!((table[0].key.as_str(), table[0].line), ("a", 1));
        let Value::Table(inner) = &table[1].item.value else { panic!("{table:?}") };
        assert_eq!((inner[0].key.as_str(), inner[0].line), ("c", 4));
        let Value::List(items) = &inner[0].item.value else { panic!("{inner:?}") };
        assert_eq!(items[1], Item { line: 6, value: Value::Text("y".into()) });
        assert_eq!(inner[1].item.value, Value::Integer(31));
    }

    #[test]
    fn what_is_not_toml_is_placed() {
        assert_eq!(parse("a = 1\nb = = 2\n").unwrap_err().line, 2);
        assert_eq!(parse("a = 1\na = 2\n").unwrap_err().line, 2);
        assert_eq!(parse("a = 99999999999999999999\n").unwrap_err().message, "the number is out of range");
    }
}
