//! What `INFO` and `CONFIG GET` answer.

use std::collections::HashMap;
use std::str::FromStr;

use redis::Value;

/// Names and values. `None` where the server would not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(HashMap<String, String>);

impl Facts {
    /// Adds the lines of `INFO`: `name:value`, and `#` before the name of a section.
    pub(super) fn add_info(&mut self, answer: &Value) {
        let text = text(answer).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        self.0.extend(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    }

    /// Adds the pairs of `CONFIG GET`.
    pub(super) fn add_config(&mut self, answer: &Value) {
        let pairs = answer.as_map_iter().into_iter().flatten();
        self.0.extend(pairs.filter_map(|(name, value)| Some((text(name)?, text(value)?))));
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    /// Whether it has this value.
    pub fn is(&self, name: &str, value: &str) -> Option<bool> {
        self.0.get(name).map(|found| found == value)
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    redis::from_redis_value_ref(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_found() {
        let mut facts = Facts::default();
        let info = "# Memory\r\nused_memory:12\r\nmaxmemory_policy:noeviction\r\n\r\n# Persistence\r\naof_enabled:1\r\n";
        facts.add_info(&Value::BulkString(info.into()));
        let word = |word: &str| Value::BulkString(word.into());
        facts.add_config(&Value::Map(vec![(word("save"), word("3600 1"))]));
        assert_eq!(facts.number::<u64>("used_memory"), Some(12));
        assert_eq!(facts.text("maxmemory_policy"), Some("noeviction"));
        assert_eq!(facts.is("aof_enabled", "1"), Some(true));
        assert_eq!(facts.text("save"), Some("3600 1"));
        assert_eq!(facts.is("maxclients", "1"), None);
    }
}
