//! The name of a plugin, checked once.

use std::fmt;
use std::sync::Arc;

/// Longest plugin id, in bytes: it is part of log lines, metric labels and configuration keys.
pub const PLUGIN_ID_BYTES_MAX: usize = 64;

/// A plugin's name: `[a-z0-9][a-z0-9_-]*`, at most 64 bytes. Cheap to clone.
///
/// It is `name` of the manifest, else the stem of the file. It is what `[plugins.NAME.grants]` in `rwork.toml` refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginId(Arc<str>);

/// A text that can't be a plugin's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a plugin name of 1 to {PLUGIN_ID_BYTES_MAX} characters of `a-z`, `0-9`, `_`, `-`, beginning with a letter or \
     digit, got `{name}`"
)]
pub struct InvalidPluginId {
    /// The text.
    pub name: String,
}

impl PluginId {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character that is not allowed.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidPluginId> {
        let name = name.as_ref();
        let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = (1..=PLUGIN_ID_BYTES_MAX).contains(&name.len())
            && name.bytes().next().is_some_and(word)
            && name.bytes().all(|c| word(c) || c == b'_' || c == b'-');
        if fits {
            Ok(Self(Arc::from(name)))
        } else {
            Err(InvalidPluginId { name: name.escape_debug().take(PLUGIN_ID_BYTES_MAX * 2).collect() })
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for PluginId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for PluginId {
    type Err = InvalidPluginId;

    fn from_str(name: &str) -> Result<Self, InvalidPluginId> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_pass() {
        for bad in ["", "-a", "_a", "A", "a.b", "a b", "a/b", "é", "a\n", &"x".repeat(65)] {
            assert!(PluginId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "0", "math", "image-tools_2", &"x".repeat(64)] {
            assert_eq!(PluginId::new(good).unwrap().as_str(), good);
        }
    }
}
