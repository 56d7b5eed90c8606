//! Tables that refuse keys they don't know, and say which one was meant.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Visitor};

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be offered for the other: `max_retry` is, `color` isn't.
const LIKENESS_MIN: f64 = 0.8;

/// The known name that is most like `name`, if any is like it.
pub(crate) fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?`, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, known).map(|best| format!("; did you mean `{best}`?")).unwrap_or_default()
}

/// A value of a strict table. `null` leaves the key unset unless the type gives it a meaning.
pub(crate) trait Setting: DeserializeOwned {
    fn null() -> Option<Self> {
        None
    }
}

impl Setting for bool {}
impl Setting for u8 {}
impl Setting for String {}

/// Reads one key of a table. The check is made here, and not after the value was read, so that the error points at the
/// key's line.
pub(crate) struct KnownKey {
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for KnownKey {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KnownKey {
    type Value = &'static str;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a key of {}", self.what)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<&'static str, E> {
        self.keys.iter().find(|known| **known == name).copied().ok_or_else(|| {
            let offer = did_you_mean(name, self.keys.iter().copied());
            let what = self.what;
            E::custom(format_args!("unknown key `{}` in {what}{offer}", name.escape_debug()))
        })
    }
}

/// A key that appears twice in one table.
pub(crate) fn duplicate<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("key `{key}` is given twice"))
}

/// Declares a struct of optional settings that deserializes strictly and can be laid over another of its kind.
macro_rules! strict {
    (
        $(#[$meta:meta])*
        pub struct $name:ident ($what:literal) {
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Option<$type>,)*
        }

        impl $name {
            /// Each field from `self` where it is set, else from `lower`.
            #[must_use]
            pub fn over(self, lower: &Self) -> Self {
                Self { $($field: self.$field.or_else(|| lower.$field.clone()),)* }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Table;

                impl<'de> serde::de::Visitor<'de> for Table {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a table of ", $what))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        const KEYS: &[&str] = &[$(stringify!($field)),*];
                        let mut table = $name::default();
                        let mut seen: Vec<&'static str> = Vec::new();
                        while let Some(key) =
                            map.next_key_seed($crate::strict::KnownKey { what: $what, keys: KEYS })?
                        {
                            if seen.contains(&key) {
                                return Err($crate::strict::duplicate(key));
                            }
                            seen.push(key);
                            match key {
                                $(stringify!($field) => {
                                    table.$field = map
                                        .next_value::<Option<$type>>()?
                                        .or_else(<$type as $crate::strict::Setting>::null);
                                })*
                                _ => { map.next_value::<serde::de::IgnoredAny>()?; }
                            }
                        }
                        Ok(table)
                    }
                }

                deserializer.deserialize_map(Table)
            }
        }
    };
}
pub(crate) use strict;

/// Reads a value whose text is checked by `parse`.
pub(crate) fn parsed<'de, D, T, E>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: std::fmt::Display,
{
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_alike_is_offered() {
        let known = ["max_retries", "time_limit", "queue"];
        assert_eq!(closest("max_retry", known), Some("max_retries"));
        assert_eq!(closest("time_limits", known), Some("time_limit"));
        assert_eq!(closest("color", known), None);
        assert_eq!(did_you_mean("que", known), "; did you mean `queue`?");
        assert_eq!(did_you_mean("zzz", known), "");
    }
}
